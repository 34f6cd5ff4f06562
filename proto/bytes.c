/* SPDX-License-Identifier: Apache-2.0 */
/* bytes.c - see bytes.h. */
#include "proto/bytes.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int bytes_parse(const char *text, uint64_t *ret_bytes)
{
    static const char suffixes[] = "KMGT";
    char *end;
    if (!isdigit((unsigned char)text[0]))
        return -EINVAL;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (errno != 0)
        return -ERANGE;
    const char *suffix = *end ? strchr(suffixes, toupper((unsigned char)*end)) : NULL;
    unsigned shift = suffix ? 10 * (unsigned)(suffix - suffixes + 1) : 0;
    end += suffix != NULL;
    if (suffix && *end == 'i')
        end++;
    if (*end == 'B' && end[1] == 0)
        end++;
    if (*end != 0)
        return -EINVAL;
    if (n > UINT64_MAX >> shift)
        return -ERANGE;
    *ret_bytes = (uint64_t)n << shift;
    return 0;
}
