/* SPDX-License-Identifier: Apache-2.0 */
/* map_svg.h - a map as an SVG picture that needs nothing but itself. */
#ifndef ACRECTL_MAP_SVG_H
#define ACRECTL_MAP_SVG_H

#include <stdio.h>

#include "map.h"

/* Light or dark as the reader's system is; what a piece is shows under the pointer. */
void map_svg_print(FILE *to, const struct map *map);

#endif
