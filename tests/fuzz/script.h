/* SPDX-License-Identifier: Apache-2.0 */
/* script.h - inputs that are text: a line is a verb, one letter, and decimal numbers; what is
 * missing is 0. "@5" is 5 bytes behind where the line's peer was granted something last, "#5" five
 * units. Any bytes are a script. */
#ifndef ACRE_TESTS_FUZZ_SCRIPT_H
#define ACRE_TESTS_FUZZ_SCRIPT_H

#include "shm/base.h"
#include "shm/layout.h"

struct script {
    const uint8_t *at, *end;
    uint64_t off; /* of that grant */
};

static inline bool script_in_line(const struct script *s)
{
    return s->at < s->end && *s->at != '\n';
}

static inline void script_next_line(struct script *s)
{
    while (script_in_line(s))
        s->at++;
    s->at += s->at < s->end;
}

/* '\n': the line is empty. */
static inline uint8_t script_verb(struct script *s)
{
    uint8_t verb = *s->at;
    s->at += verb != '\n';
    return verb;
}

static inline uint64_t script_number(struct script *s)
{
    uint64_t n = 0;
    uint64_t base = 0;
    while (script_in_line(s) && *s->at == ' ')
        s->at++;
    if (script_in_line(s) && (*s->at == '@' || *s->at == '#'))
        base = *s->at++ == '@' ? s->off : s->off >> UNIT_SHIFT & (SLOT_UNITS - 1);
    for (; script_in_line(s) && *s->at >= '0' && *s->at <= '9'; s->at++)
        n = n * 10 + *s->at - '0';
    return base + n;
}

static inline uint32_t script_below(struct script *s, uint32_t n)
{
    return (uint32_t)(script_number(s) % n);
}

#endif
