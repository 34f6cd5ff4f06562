/* SPDX-License-Identifier: Apache-2.0 */
#include "say.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

static void say(const char *format, va_list args)
{
    char sentence[1024];
    vsnprintf(sentence, sizeof(sentence), format, args);
    fprintf(stderr, "acre-bench: %s\n", sentence);
}

int complain(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(format, args);
    va_end(args);
    return EXIT_FINDING;
}

void give_up(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(format, args);
    va_end(args);
    _exit(EXIT_FINDING);
}
