/* SPDX-License-Identifier: Apache-2.0 */
/* map_term.h - a map as text, at most 80 columns wide. */
#ifndef ACRECTL_MAP_TERM_H
#define ACRECTL_MAP_TERM_H

#include <stdio.h>

#include "map.h"

enum map_by { MAP_BY_FILL, MAP_BY_CLIENT, MAP_BY_CLASS, MAP_BY_NONE };

/* "fill", "client", "class"; else MAP_BY_NONE */
enum map_by map_by(const char *name);

/* by: what the signs tell. In colours, which tell whose it is, and finer signs if the stream is a
 * terminal that takes them and $NO_COLOR is not set. */
void map_print(FILE *to, const struct map *map, enum map_by by);

#endif
