/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_packet.c - any bytes, as a request and as a reply: what decodes is packed and decoded again,
 * and must be the same. */
#include <string.h>

#include "proto/codec.h"
#include "tests/fuzz/fuzz.h"

#define FILL 0xa5 /* where nothing is said, both say nothing */

static void try_request(const uint8_t *data, size_t n)
{
    struct msg_request first, again;
    uint8_t buf[WIRE_PACKET_MAX];
    memset(&first, FILL, sizeof(first));
    memset(&again, FILL, sizeof(again));
    if (codec_unpack_request(data, n, &first) < 0) {
        acre_assert(first.op == MSG_NONE);
        return;
    }
    if (first.op == MSG_ATTACH && first.attach.resume_client == 0)
        memset(first.attach.secret, 0, sizeof(first.attach.secret)); /* nobody asks for it */
    acre_assert((first.op == MSG_ACK) == (first.serial == 0));
    size_t n_packed = codec_pack_request(&first, buf);
    acre_assert(n_packed > 0 && n_packed <= WIRE_PACKET_MAX);
    acre_assert(codec_unpack_request(buf, n_packed, &again) == 0);
    acre_assert(memcmp(&first, &again, sizeof(first)) == 0);
}

static void try_reply(const uint8_t *data, size_t n)
{
    static struct msg_reply first, again;
    uint8_t buf[WIRE_PACKET_MAX];
    memset(&first, FILL, sizeof(first));
    memset(&again, FILL, sizeof(again));
    if (codec_unpack_reply(data, n, &first) < 0) {
        acre_assert(first.op == MSG_NONE);
        return;
    }
    if (first.serial == 0) /* a stray's: the daemon makes none */
        return;
    if (first.error == 0)
        memset(first.text, 0, sizeof(first.text)); /* a text without an error is not told on */
    size_t n_packed = codec_pack_reply(&first, buf);
    acre_assert(n_packed > 0 && n_packed <= WIRE_PACKET_MAX);
    acre_assert(codec_unpack_reply(buf, n_packed, &again) == 0);
    acre_assert(memcmp(&first, &again, sizeof(first)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    try_request(data, n);
    try_reply(data, n);
    return 0;
}
