/* SPDX-License-Identifier: Apache-2.0 */
/* codec.h - between msg.h's structs and packets. codec.c is the only file that knows protobuf-c. */
#ifndef ACRE_PROTO_CODEC_H
#define ACRE_PROTO_CODEC_H

#include "proto/msg.h"
#include "proto/wire.h"

/* Packs into buf (WIRE_PACKET_MAX bytes). Own messages always fit: asserted. Returns the length,
 * never 0. */
size_t codec_pack_request(const struct msg_request *req, uint8_t *buf);
size_t codec_pack_reply(const struct msg_reply *reply, uint8_t *buf);

/* Decodes foreign bytes. -EPROTO: not a message, a string too long, too many elements, or an
 * unknown op (then ret->serial is set if it could be read, and op is MSG_NONE). The op's part of
 * ret is fully written on success. Requests have a serial other than 0, Ack has serial 0. */
int codec_unpack_request(const uint8_t *buf, size_t n, struct msg_request *ret);
int codec_unpack_reply(const uint8_t *buf, size_t n, struct msg_reply *ret);

#endif
