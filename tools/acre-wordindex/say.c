/* SPDX-License-Identifier: Apache-2.0 */
#include "say.h"

#include <acre.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

int complain(const char *format, ...)
{
    char sentence[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof(sentence), format, args);
    va_end(args);
    fprintf(stderr, "acre-wordindex: %s\n", sentence);
    return EXIT_FINDING;
}

int exit_code_of(int r)
{
    switch (r) {
    case -ECONNREFUSED:
    case -EPROTO:
    case -EPROTONOSUPPORT:
    case -ETIMEDOUT:
        return EXIT_NO_DAEMON;
    default:
        return EXIT_FINDING;
    }
}

int complain_acre(int r, const char *what)
{
    const char *figures = acre_last_error(); /* of this failure: nothing of Acre was called since */
    complain("%s: %s", what, *figures ? figures : acre_strerror(r));
    return exit_code_of(r);
}
