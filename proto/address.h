/* SPDX-License-Identifier: Apache-2.0 */
/* address.h - where the daemon listens: one rule for the library, the tools and the daemon. */
#ifndef ACRE_PROTO_ADDRESS_H
#define ACRE_PROTO_ADDRESS_H

#include "proto/msg.h"

#define ADDRESS_BYTES       108u /* of a socket's path, with the final 0 */
#define ADDRESS_SYSTEM_DIR  "/run/acre"
#define ADDRESS_SYSTEM_PATH ADDRESS_SYSTEM_DIR "/acred.sock"

enum address_kind { ADDRESS_GIVEN, ADDRESS_SYSTEM, ADDRESS_USER };

/*
 * given; if NULL $ACRE_SOCKET (not in a set-user-id program); else the system's socket if its
 * directory exists (any answer but "it does not" means that there is a system daemon, perhaps one
 * that we may not see); else the user's own. -EINVAL empty or too long; and as address_user(). text
 * gets MSG_TEXT_BYTES: the sentence of a failure.
 */
int address_find(const char *given, bool make_dir, char *ret_path, enum address_kind *ret_kind,
                 char *ret_text);

/*
 * $XDG_RUNTIME_DIR/acre/acred.sock, or without that variable /tmp/acre-UID/acred.sock. Anybody may
 * make /tmp/acre-UID, so the directory must be this user's alone. make_dir: it is made if it is
 * missing. -EACCES it is somebody else's or open to others; -EINVAL too long; other negative errno
 * of mkdir.
 */
int address_user(bool make_dir, char *ret_path, char *ret_text);

#endif
