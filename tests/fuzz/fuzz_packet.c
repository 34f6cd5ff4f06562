/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_packet.c - any bytes, as a request and as a reply: what decodes is packed and decoded again,
 * and must be the same. And the bytes behind the first as what is inside of a message, whose number
 * the first one is: else each change of a length would have to change another with it. */
#include <string.h>

#include "proto/codec.h"
#include "tests/fuzz/fuzz.h"

#define INSIDE_MAX (WIRE_PACKET_MAX - 16)
#define FILL       0xa5 /* where nothing is said, both say nothing */

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

static void try_both(const uint8_t *data, size_t n)
{
    try_request(data, n);
    try_reply(data, n);
}

/* Serial 7, then a field that holds the body. */
static size_t wrap(uint8_t *buf, unsigned field, const uint8_t *body, size_t n)
{
    size_t at = 0;
    unsigned tag = field << 3 | 2;
    buf[at++] = 1 << 3;
    buf[at++] = 7;
    buf[at++] = (uint8_t)(tag | 0x80);
    buf[at++] = (uint8_t)(tag >> 7);
    buf[at++] = (uint8_t)(n | 0x80); /* two bytes: 14 bits, as INSIDE_MAX has */
    buf[at++] = (uint8_t)(n >> 7);
    memcpy(buf + at, body, n);
    return at + n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    uint8_t buf[WIRE_PACKET_MAX];
    try_both(data, n);
    if (n > 0 && n - 1 <= INSIDE_MAX)
        try_both(buf, wrap(buf, 2 + data[0] % 17, data + 1, n - 1));
    return 0;
}
