/* SPDX-License-Identifier: Apache-2.0 */
/* sentence.c - what a finding of verify.c says: what the segment says, and what the daemon says. */
#include <inttypes.h>

#include "shm/sizeclass.h"
#include "verify.h"

#define PART_BYTES 128u

static void say_holder(char buf[static PART_BYTES], tag_t id)
{
    if (id == 0 || id == TAG_HEAP)
        (void)snprintf(buf, PART_BYTES, "nobody");
    else
        (void)snprintf(buf, PART_BYTES, "client %u", id);
}

static void say_slab(char buf[static PART_BYTES], uint64_t e, const char *state)
{
    unsigned geo = unit_entry_geo(e), back = unit_entry_back(e);
    char holder[PART_BYTES], place[32] = "head";

    say_holder(holder, holder_client(unit_entry_holder(e)));
    if (back != 0)
        (void)snprintf(place, sizeof(place), "unit %u", back);
    if (geo_infos[geo].n_blocks == 0)
        (void)snprintf(buf, PART_BYTES, "%s of a %s of no geometry (%u) of %.40s", place, state,
                       geo, holder);
    else
        (void)snprintf(buf, PART_BYTES, "%s of a %s of %" PRIu32 "-byte blocks of %.40s", place,
                       state, geo_table[geo].size, holder);
}

static void say_entry(char buf[static PART_BYTES], uint64_t e)
{
    static const char *const states[U_STATES] = {
        [U_SLAB] = "slab", [U_PARKED] = "parked slab", [U_RELEASING] = "slab on its way back"};
    unsigned state = unit_entry_state(e);
    char holder[PART_BYTES];

    say_holder(holder, holder_client(unit_entry_holder(e)));
    if (e == 0)
        (void)snprintf(buf, PART_BYTES, "free");
    else if (state < U_STATES && states[state])
        say_slab(buf, e, states[state]);
    else if (state == U_UNCUT || state == U_CUT)
        (void)snprintf(buf, PART_BYTES, "%s, of %.40s", state == U_CUT ? "cut" : "not cut", holder);
    else if (state == U_LARGE) {
        say_holder(holder, unit_entry_large_holder(e));
        (void)snprintf(buf, PART_BYTES, "%slarge block of %" PRIu32 " units of %.40s",
                       unit_entry_geo(e) & LARGE_KEPT ? "kept " : "", unit_entry_large_units(e),
                       holder);
    } else
        (void)snprintf(buf, PART_BYTES, state == U_META ? "tables" : "no state that there is");
}

static void say_record(char buf[static PART_BYTES], struct check_record r)
{
    char holder[PART_BYTES];

    say_holder(holder, r.owner);
    if (r.place == CHECK_META)
        (void)snprintf(buf, PART_BYTES, "tables");
    else if (r.owner == 0)
        (void)snprintf(buf, PART_BYTES, r.place == CHECK_GRANTED ? "nobody's" : "free");
    else if (r.owner == TAG_HEAP)
        (void)snprintf(buf, PART_BYTES, "an orphan's");
    else
        (void)snprintf(buf, PART_BYTES, "granted to %.40s", holder);
}

/* What is wrong, for those where the two do not say it by themselves. */
static const char *entry_wrong(enum check_kind kind)
{
    switch (kind) {
    case CHECK_BITS:
        return ", where bits are set that mean nothing";
    case CHECK_SLAB:
        return ", which cannot be there";
    case CHECK_LARGE:
        return ", which is not its size";
    default:
        return "";
    }
}

static void say_tags(char *buf, size_t n, const struct check_finding *f, const char *entry)
{
    if (unit_entry_state(f->entry) == U_LARGE)
        (void)snprintf(buf, n,
                       "the segment says %s, the block client %u's; the daemon has no such "
                       "client",
                       entry, f->id);
    else
        (void)snprintf(buf, n,
                       "the segment says %s, %" PRIu32 " of its blocks of clients that are gone, "
                       "block %" PRIu32 " client %u's; the daemon has no such client",
                       entry, f->n_bad, f->idx, f->id);
}

static void say_unit(char *buf, size_t n, const struct check_finding *f)
{
    char entry[PART_BYTES], head[PART_BYTES], record[PART_BYTES];

    say_entry(entry, f->entry);
    say_entry(head, f->head);
    say_record(record, f->record);
    if (f->kind == CHECK_TAG)
        say_tags(buf, n, f, entry);
    else if (f->kind == CHECK_HEAD || f->kind == CHECK_INNER)
        (void)snprintf(buf, n,
                       "the segment says %s (%016" PRIx64 "), where its head says %s (%016" PRIx64
                       "); the daemon says %s",
                       entry, f->entry, head, f->head, record);
    else if (f->kind == CHECK_TWICE)
        (void)snprintf(buf, n, "the segment says %s; the daemon says %s, and has it free as well",
                       entry, record);
    else if (f->kind == CHECK_LOST)
        (void)snprintf(
            buf, n, "the segment says %s; the daemon says nobody's, and does not have it", entry);
    else if (f->kind == CHECK_STRANGER)
        (void)snprintf(buf, n, "the segment says %s; the daemon says %s, and has no such client",
                       entry, record);
    else
        (void)snprintf(buf, n, "the segment says %s (%016" PRIx64 ")%s; the daemon says %s", entry,
                       f->entry, entry_wrong(f->kind), record);
}

static const struct {
    const char *name, *format; /* of seen and said */
} kinds[CHECK_KINDS] = {
    [CHECK_WELL] = {"well", NULL},
    [CHECK_TABLES] = {"tables", NULL},
    [CHECK_NOBODY] = {"nobody", NULL},
    [CHECK_STATE] = {"state", NULL},
    [CHECK_HOLDER] = {"holder", NULL},
    [CHECK_BITS] = {"bits", NULL},
    [CHECK_SLAB] = {"slab", NULL},
    [CHECK_LARGE] = {"large", NULL},
    [CHECK_HEAD] = {"head", NULL},
    [CHECK_INNER] = {"inner", NULL},
    [CHECK_TAG] = {"tag", NULL},
    [CHECK_TWICE] = {"twice", NULL},
    [CHECK_LOST] = {"lost", NULL},
    [CHECK_STRANGER] = {"stranger", NULL},
    [CHECK_HEADER] = {"header", NULL},
    [CHECK_FILE_BYTES] = {"file_bytes", "the file has %" PRIu64 " bytes, the daemon says %" PRIu64},
    [CHECK_CONTROL_SEGMENT] = {"control_segment",
                               "the file has %" PRIu64 " bytes, the control page says %" PRIu64},
    [CHECK_RESIDENT] = {"resident", "%" PRIu64 " bytes are resident of %" PRIu64 " sealed ones"},
    [CHECK_N_FREE] = {"n_free",
                      "%" PRIu64 " units are free, the daemon's allocator counts %" PRIu64},
    [CHECK_CLIENT_UNITS] = {"client_units",
                            "%" PRIu64 " units are granted, the daemon counts %" PRIu64},
    [CHECK_CLIENT_BYTES] = {"client_bytes",
                            "the control page says %" PRIu64 " bytes, the daemon %" PRIu64},
    [CHECK_GENERATION] = {"generation", "the control page says generation %" PRIu64
                                        ", the daemon %" PRIu64 " (0: gone or dying)"},
    [CHECK_GRANTED_UNITS] = {"granted_units",
                             "%" PRIu64 " units are granted, the daemon counts %" PRIu64},
    [CHECK_GRANTED_BYTES] = {"granted_bytes", "the control page says %" PRIu64
                                              " bytes are granted, the daemon %" PRIu64},
    [CHECK_CHARGED] = {"charged",
                       "the segments have %" PRIu64 " bytes, the ledger charges %" PRIu64},
    [CHECK_SEALED] = {"sealed",
                      "the control page says %" PRIu64 " bytes in segments, the ledger %" PRIu64},
};

const char *verify_kind(enum check_kind kind)
{
    return kinds[kind].name;
}

void verify_sentence(char *buf, size_t n, const struct check_finding *f)
{
    int at;

    if (f->kind < CHECK_HEADER)
        at = snprintf(buf, n, "slot %" PRIu32 ", unit %" PRIu32 ": ", f->slot, f->unit);
    else if (f->kind <= CHECK_N_FREE)
        at = snprintf(buf, n, "slot %" PRIu32 ": ", f->slot);
    else
        at = f->id != 0 ? snprintf(buf, n, "client %u: ", f->id) : 0;
    if (f->kind < CHECK_HEADER)
        say_unit(buf + at, n - (size_t)at, f);
    else if (f->kind == CHECK_HEADER)
        (void)snprintf(buf + at, n - (size_t)at, "%s", f->why);
    else
        (void)snprintf(buf + at, n - (size_t)at, kinds[f->kind].format, f->seen, f->said);
}
