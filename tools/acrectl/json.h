/* SPDX-License-Identifier: Apache-2.0 */
/* json.h - a survey as JSON. Keys once printed stay; others may join. */
#ifndef ACRECTL_JSON_H
#define ACRECTL_JSON_H

#include <stdio.h>

#include "map.h"
#include "tools/look/survey.h"
#include "verify.h"
#include "waiters.h"

/* -ENOMEM, -EIO. */
int json_print_survey(FILE *to, const struct survey *survey);
/* On one line, with the seconds since 1970, and whether the daemon is silent. */
int json_print_watch(FILE *to, const struct survey *survey);
/* survey: a brief one. */
int json_print_status(FILE *to, const struct msg_reply *reply, const char *socket,
                      const struct survey *survey);
int json_print_waiters(FILE *to, const struct waiters *waiters, size_t n);
int json_print_map(FILE *to, const struct map *map);
int json_print_verify(FILE *to, const struct verify *verifies, size_t n);

#endif
