/* SPDX-License-Identifier: Apache-2.0 */
/*
 * buddy.h - buddy allocator over the units [0, n_units) of one segment, in private memory. n_units
 * need be no power of two.
 *
 * The theory stands at the head of buddy.c. Address-ordered: of all free spans of the smallest
 * sufficient order the lowest is taken, so that the high end of a segment empties first. Not
 * thread-safe.
 */
#ifndef ACRE_SHM_BUDDY_H
#define ACRE_SHM_BUDDY_H

#include "shm/base.h"

#define BUDDY_ORDER_MAX 17u /* 2^17 units: a whole slot */
#define BUDDY_NONE      UINT32_MAX

struct buddy;

/* All units start out taken. n_units in [1, 2^17]. -ENOMEM. */
int buddy_new(struct buddy **ret_buddy, uint32_t n_units);
void buddy_free(struct buddy *buddy);

/* A span of 2^order units, aligned to itself; BUDDY_NONE if there is none. */
uint32_t buddy_take(struct buddy *buddy, unsigned order);

/* A run of exactly n_units, aligned to 2^log2_ceil(n_units): a span whose tail is given back. */
uint32_t buddy_take_run(struct buddy *buddy, uint32_t n_units);

/* Takes exactly the free units [unit, unit + n_units): false if any of them is not free (then
 * nothing changed). */
bool buddy_take_at(struct buddy *buddy, uint32_t unit, uint32_t n_units);

/* Gives back any run of taken units (part of one taken span, or several): merged with its
 * neighbours. Asserts that all were taken. */
void buddy_give(struct buddy *buddy, uint32_t unit, uint32_t n_units);

uint32_t buddy_n_free(const struct buddy *buddy);
/* Order of the largest free span; -1 if nothing is free. */
int buddy_largest_order(const struct buddy *buddy);
bool buddy_is_free(const struct buddy *buddy, uint32_t unit);
/* Next run of free units at or after unit, as long as it goes (one that began before unit is cut
 * there): false if none. */
bool buddy_next_free_run(const struct buddy *buddy, uint32_t unit, uint32_t *ret_unit,
                         uint32_t *ret_n);

/* The lowest place of n_units free units in a row, aligned to 2^align_order: BUDDY_NONE if there is
 * none. Nothing is taken. */
uint32_t buddy_find_run(const struct buddy *buddy, uint32_t n_units, unsigned align_order);

/* Recounts everything; aborts with the two numbers that disagree. */
void buddy_assert_valid(const struct buddy *buddy);

#endif
