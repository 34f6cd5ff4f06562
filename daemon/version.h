/* SPDX-License-Identifier: Apache-2.0 */
/* version.h - what acred calls itself. */
#ifndef ACRE_DAEMON_VERSION_H
#define ACRE_DAEMON_VERSION_H

#define ACRED_VERSION "0.1.0"

#endif
