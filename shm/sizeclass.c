/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/sizeclass.h"

#include <pthread.h>

struct geo geo_table[256];
struct geo_info geo_infos[256];
uint32_t class_bytes[N_CLASSES];
uint32_t class_table[CLASS_TABLE_ENTRIES];
uint8_t class_order_min[N_CLASSES];
uint8_t class_order_max[N_CLASSES];

static pthread_once_t once = PTHREAD_ONCE_INIT;

static_assert(N_GEOS <= 256, "a geometry's index is one byte of the unit entry");

/* Blocks of a slab: the largest n with map and blocks inside it. */
static uint32_t slab_first(uint32_t n_blocks, uint32_t align)
{
    return (uint32_t)round_up_u64(n_blocks * sizeof(tag_t), MAX(align, 16u));
}

static uint32_t slab_blocks(uint32_t slab_bytes, uint32_t size, uint32_t align)
{
    uint32_t n = slab_bytes / size;
    while (n > 0 && slab_first(n, align) + n * size > slab_bytes)
        n--;
    return n;
}

static void fill_class(unsigned c)
{
    uint32_t size = class_bytes[c], align = MIN(size & -size, SLAB_ALIGN_MAX);
    unsigned order = 0;

    while (slab_blocks((uint32_t)UNIT_BYTES << order, size, align) == 0)
        order++;
    class_order_min[c] = (uint8_t)order;
    for (unsigned i = 0; i < GEO_ORDERS && order + i <= SLAB_ORDER_MAX; i++) {
        unsigned g = geo_of(c, order + i);
        uint32_t n = slab_blocks((uint32_t)UNIT_BYTES << (order + i), size, align);
        geo_table[g] = (struct geo){.recip = UINT64_MAX / size + 1,
                                    .size = size,
                                    .first = slab_first(n, align),
                                    .limit = n * size,
                                    .class_off = c * CLASS_STEP,
                                    .mask = ((uint32_t)UNIT_BYTES << (order + i)) - 1};
        geo_infos[g] = (struct geo_info){
            .n_blocks = (uint16_t)n, .class_idx = (uint8_t)c, .order = (uint8_t)(order + i)};
        /* Up to 1 KiB a busy slab is 64 KiB; above, as large as it takes to hold 16 blocks. */
        if ((UNIT_BYTES << (order + i)) <= KIB(64) || n <= 16)
            class_order_max[c] = (uint8_t)(order + i);
    }
}

static uint64_t fnv1a(uint64_t hash, const void *data, size_t n)
{
    for (const unsigned char *p = data; n > 0; n--)
        hash = (hash ^ *p++) * 0x100000001b3ull;
    return hash;
}

uint64_t layout_fingerprint_anew(void)
{
    const uint64_t constants[] = {LAYOUT_VERSION,
                                  UNIT_SHIFT,
                                  SLOT_SHIFT,
                                  HEAP_SLOTS,
                                  sizeof(tag_t),
                                  sizeof(struct seg_header),
                                  sizeof(struct control),
                                  sizeof(struct life_page)};
    uint64_t hash = fnv1a(0xcbf29ce484222325ull, constants, sizeof(constants));
    hash = fnv1a(hash, geo_table, sizeof(geo_table));
    return fnv1a(hash, geo_infos, sizeof(geo_infos));
}

static uint64_t fingerprint; /* 9 KB are hashed: 15 us, three times an attach and once a segment */

static void init(void)
{
    for (unsigned c = 0; c < 8; c++)
        class_bytes[c] = 16 * (c + 1);
    for (unsigned c = 8; c < N_CLASSES; c++)
        class_bytes[c] = (5 + (c - 8) % 4) << (5 + (c - 8) / 4);
    acre_assert(class_bytes[N_CLASSES - 1] == SMALL_MAX_BYTES);
    for (unsigned c = 0; c < N_CLASSES; c++)
        fill_class(c);
    for (unsigned i = 0; i < ARRAY_LEN(class_table); i++)
        class_table[i] = class_of_size(16 * i) * CLASS_STEP;
    fingerprint = layout_fingerprint_anew();
}

void sizeclass_init(void)
{
    pthread_once(&once, init);
}

uint64_t layout_fingerprint(void)
{
    sizeclass_init();
    return fingerprint;
}
