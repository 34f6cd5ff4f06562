/* SPDX-License-Identifier: Apache-2.0 */
#include "json.h"

#include <jansson.h>
#include <string.h>
#include <time.h>

#include "tools/look/table.h"

/* Names are their owners' bytes: what is not UTF-8 is made printable first. */
static json_t *name_of(const char *name)
{
    json_t *s = json_string(name);
    char safe[MSG_TEXT_BYTES];

    return s ? s : json_string(table_printable(safe, sizeof(safe), name));
}

static json_t *client_of(const struct survey_client *c)
{
    uint64_t handle = client_handle(c->id, c->gen);

    return json_pack("{s:I, s:I, s:I, s:I, s:o, s:I, s:I, s:I, s:I}", "id", (json_int_t)c->id,
                     "generation", (json_int_t)c->gen, "client", (json_int_t)handle, "pid",
                     (json_int_t)c->pid, "name", name_of(c->name), "granted_bytes",
                     (json_int_t)c->granted_bytes, "live_bytes", (json_int_t)c->live_bytes,
                     "live_blocks", (json_int_t)c->live_blocks, "free_bytes",
                     (json_int_t)c->free_bytes);
}

static json_t *class_of(unsigned class_idx, const struct census_class *c)
{
    uint64_t block_bytes = class_bytes[class_idx];

    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "block_bytes", (json_int_t)block_bytes,
                     "slabs", (json_int_t)c->slabs, "live_blocks", (json_int_t)c->live_blocks,
                     "free_blocks", (json_int_t)c->free_blocks, "live_bytes",
                     (json_int_t)(c->live_blocks * block_bytes), "free_bytes",
                     (json_int_t)(c->free_blocks * block_bytes));
}

static json_t *clients_of(const struct survey_tenant *t)
{
    json_t *array = json_array();

    for (size_t i = 0; i < t->n_clients; i++)
        json_array_append_new(array, client_of(&t->clients[i]));
    return array;
}

static json_t *classes_of(const struct survey_tenant *t)
{
    json_t *array = json_array();

    for (unsigned i = 0; i < N_CLASSES; i++)
        if (t->census.classes[i].slabs != 0)
            json_array_append_new(array, class_of(i, &t->census.classes[i]));
    return array;
}

static json_t *error_of(const char *name, int error, const char *why)
{
    return json_pack("{s:o, s:i, s:o}", "name", name_of(name), "error", error, "why", name_of(why));
}

static json_t *tenant_of(const struct survey_tenant *t)
{
    const struct census *c = &t->census;

    if (t->error)
        return error_of(t->name, t->error, t->why);
    return json_pack(
        "{s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o}",
        "name", name_of(t->name), "max_bytes", (json_int_t)t->max_bytes, "granted_bytes",
        (json_int_t)t->granted_bytes, "sealed_bytes", (json_int_t)t->sealed_bytes, "resident_bytes",
        (json_int_t)t->resident_bytes, "live_bytes", (json_int_t)c->live_bytes, "live_blocks",
        (json_int_t)c->live_blocks, "free_bytes", (json_int_t)survey_free_bytes(t),
        "published_bytes", (json_int_t)survey_published_bytes(t), "large_blocks",
        (json_int_t)c->large_blocks, "large_bytes", (json_int_t)c->large_bytes, "bad_entries",
        (json_int_t)c->n_bad, "largest_block_bytes", (json_int_t)survey_largest_bytes(t),
        "largest_free_bytes", (json_int_t)t->largest_free_bytes, "waiters",
        (json_int_t)t->n_waiters, "clients", clients_of(t), "classes", classes_of(t));
}

static int print_as(FILE *to, json_t *json, size_t flags)
{
    if (!json)
        return -ENOMEM;
    int r = json_dumpf(json, to, flags | JSON_PRESERVE_ORDER);
    json_decref(json);
    return r < 0 || fputc('\n', to) == EOF ? -EIO : 0;
}

static int print(FILE *to, json_t *json)
{
    return print_as(to, json, JSON_INDENT(2));
}

static json_t *array_of(const struct survey *survey,
                        json_t *(*of)(const struct survey_tenant *tenant))
{
    json_t *array = json_array();

    for (size_t i = 0; i < survey->n_tenants; i++)
        if (json_array_append_new(array, of(&survey->tenants[i])) < 0) {
            json_decref(array);
            return NULL;
        }
    return array;
}

int json_print_survey(FILE *to, const struct survey *survey)
{
    json_t *tenants = array_of(survey, tenant_of);
    if (!tenants)
        return -ENOMEM;
    return print(to, json_pack("{s:I, s:o}", "capacity_bytes", (json_int_t)survey->capacity_bytes,
                               "tenants", tenants));
}

int json_print_watch(FILE *to, const struct survey *survey)
{
    struct timespec now;
    json_t *tenants = array_of(survey, tenant_of);

    if (!tenants)
        return -ENOMEM;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return print_as(to,
                    json_pack("{s:f, s:b, s:I, s:o}", "time",
                              (double)now.tv_sec + (double)now.tv_nsec / 1e9, "stale",
                              (int)survey->is_stale, "capacity_bytes",
                              (json_int_t)survey->capacity_bytes, "tenants", tenants),
                    JSON_COMPACT);
}

/* None is null. */
static json_t *high_of(const struct survey_tenant *t)
{
    return t->high_bytes == UINT64_MAX ? json_null() : json_integer((json_int_t)t->high_bytes);
}

static json_t *memory_of(const struct survey_tenant *t)
{
    if (t->error)
        return error_of(t->name, t->error, t->why);
    if (t->is_group)
        return json_pack("{s:o, s:b, s:I, s:o, s:I, s:I, s:I}", "name", name_of(t->name), "group",
                         1, "min_bytes", (json_int_t)t->min_bytes, "high_bytes", high_of(t),
                         "max_bytes", (json_int_t)t->max_bytes, "weight", (json_int_t)t->weight,
                         "sealed_bytes", (json_int_t)t->sealed_bytes);
    return json_pack("{s:o, s:I, s:o, s:I, s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:s, s:s, s:s}",
                     "name", name_of(t->name), "min_bytes", (json_int_t)t->min_bytes, "high_bytes",
                     high_of(t), "max_bytes", (json_int_t)t->max_bytes, "weight",
                     (json_int_t)t->weight, "pressure", survey_pressure(t->pressure), "over_bytes",
                     (json_int_t)t->over_bytes, "granted_bytes", (json_int_t)t->granted_bytes,
                     "sealed_bytes", (json_int_t)t->sealed_bytes, "ready_bytes",
                     (json_int_t)t->ready_bytes, "prepared_bytes", (json_int_t)t->prepared_bytes,
                     "pages", survey_pages(t->pages), "pages_wanted", survey_pages(t->pages_wanted),
                     "pages_possible", survey_pages(t->pages_possible));
}

int json_print_status(FILE *to, const struct msg_reply *reply, const char *socket,
                      const struct survey *survey)
{
    json_t *memory = array_of(survey, memory_of);
    if (!memory)
        return -ENOMEM;
    return print(to, json_pack("{s:s, s:I, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:o}", "version",
                               reply->status.version, "pid", (json_int_t)reply->status.pid, "mode",
                               reply->status.mode, "socket", socket, "uptime_ns",
                               (json_int_t)reply->status.uptime_ns, "capacity_bytes",
                               (json_int_t)reply->status.capacity_bytes, "sealed_bytes",
                               (json_int_t)reply->status.sealed_bytes, "tenants",
                               (json_int_t)reply->status.n_tenants, "clients",
                               (json_int_t)reply->status.n_clients, "memory", memory));
}

static json_t *finding_of(const struct check_finding *f)
{
    char text[MSG_TEXT_BYTES * 2];

    verify_sentence(text, sizeof(text), f);
    return json_pack("{s:s, s:I, s:I, s:I, s:o}", "kind", verify_kind(f->kind), "slot",
                     (json_int_t)f->slot, "unit", (json_int_t)f->unit, "client", (json_int_t)f->id,
                     "text", name_of(text));
}

static json_t *verify_of(const struct verify *v)
{
    json_t *found = json_array();

    if (v->error) {
        json_decref(found);
        return error_of(v->name, v->error, v->why);
    }
    for (uint32_t i = 0; i < v->n_found; i++)
        json_array_append_new(found, finding_of(&v->found[i]));
    return json_pack("{s:o, s:I, s:I, s:b, s:I, s:I, s:o}", "name", name_of(v->name), "segments",
                     (json_int_t)v->n_segments, "units", (json_int_t)v->n_units, "sums_compared",
                     v->sums_seen, "unsure", (json_int_t)v->n_unsure, "more", (json_int_t)v->n_more,
                     "findings", found);
}

static json_t *waiter_of(const struct msg_waiter *w)
{
    json_t *left = w->left_ms == 0 ? json_null() : json_integer((json_int_t)w->left_ms);

    return json_pack("{s:I, s:I, s:o, s:I, s:I, s:I, s:o}", "client", (json_int_t)w->id, "pid",
                     (json_int_t)w->pid, "name", name_of(w->name), "bytes",
                     (json_int_t)(w->n_units * UNIT_BYTES), "align_bytes",
                     (json_int_t)(UNIT_BYTES << MIN(w->align_order, 32u)), "waited_ms",
                     (json_int_t)w->waited_ms, "left_ms", left);
}

static json_t *waiters_of(const struct waiters *w)
{
    json_t *all = json_array();

    if (w->error) {
        json_decref(all);
        return error_of(w->name, w->error, w->why);
    }
    for (size_t i = 0; i < w->n; i++)
        json_array_append_new(all, waiter_of(&w->all[i]));
    return json_pack("{s:o, s:s, s:o}", "name", name_of(w->name), "wall", w->wall, "waiters", all);
}

int json_print_waiters(FILE *to, const struct waiters *waiters, size_t n)
{
    json_t *tenants = json_array();

    for (size_t i = 0; i < n; i++)
        if (json_array_append_new(tenants, waiters_of(&waiters[i])) < 0) {
            json_decref(tenants);
            return -ENOMEM;
        }
    return print(to, json_pack("{s:o}", "tenants", tenants));
}

int json_print_verify(FILE *to, const struct verify *verifies, size_t n)
{
    json_t *tenants = json_array();

    for (size_t i = 0; i < n; i++)
        if (json_array_append_new(tenants, verify_of(&verifies[i])) < 0) {
            json_decref(tenants);
            return -ENOMEM;
        }
    return print(to, json_pack("{s:o}", "tenants", tenants));
}

/* ---- map ---- */

static json_t *run_of(const struct map_run *r)
{
    json_t *run = json_pack("{s:I, s:I, s:s}", "unit", (json_int_t)r->unit, "units",
                            (json_int_t)r->n_units, "kind", map_kind_name(r->kind));

    if (run && r->holder != 0)
        json_object_set_new(run, "client", json_integer(r->holder == TAG_HEAP ? 0 : r->holder));
    if (run && r->kind == MAP_SLAB)
        json_object_set_new(run, "block_bytes", json_integer(class_bytes[r->class_idx]));
    if (run && (r->kind == MAP_SLAB || r->kind == MAP_LARGE)) {
        json_object_set_new(run, "blocks", json_integer(r->n_blocks));
        json_object_set_new(run, "live_blocks", json_integer(r->n_live));
        json_object_set_new(run, "live_bytes", json_integer((json_int_t)map_live_bytes(r)));
        json_object_set_new(run, "published_blocks", json_integer(r->n_published));
        json_object_set_new(run, "others_blocks", json_integer(r->n_lent));
        if (r->owner != 0 && r->owner != TAG_HEAP)
            json_object_set_new(run, "owner", json_integer(r->owner));
    }
    return run;
}

static json_t *map_segments_of(const struct map *map)
{
    json_t *all = json_array();

    for (size_t i = 0; i < map->n_segments; i++) {
        const struct map_segment *s = &map->segments[i];
        json_t *runs = json_array();
        for (size_t k = 0; k < s->n_runs; k++)
            json_array_append_new(runs, run_of(&map->runs[s->first_run + k]));
        json_array_append_new(all, json_pack("{s:I, s:I, s:o}", "slot", (json_int_t)s->slot,
                                             "units", (json_int_t)s->n_units, "runs", runs));
    }
    return all;
}

static json_t *map_clients_of(const struct map *map)
{
    json_t *all = json_array();

    for (size_t i = 0; i < map->n_clients; i++) {
        const struct map_client *c = &map->clients[i];
        json_array_append_new(
            all, json_pack("{s:I, s:I, s:o, s:I, s:I, s:I, s:I}", "id", (json_int_t)c->id, "pid",
                           (json_int_t)c->pid, "name", name_of(c->name), "units",
                           (json_int_t)c->n_units, "slabs", (json_int_t)c->n_slabs, "large_blocks",
                           (json_int_t)c->n_large, "live_bytes", (json_int_t)c->live_bytes));
    }
    return all;
}

static json_t *map_spans_of(const struct map_figures *f)
{
    json_t *all = json_array();

    for (unsigned k = 0; k <= BUDDY_ORDER_MAX; k++)
        json_array_append_new(all, json_integer((json_int_t)f->free_spans[k]));
    return all;
}

static json_t *map_figures_of(const struct map_figures *f)
{
    json_t *bytes = json_object();

    for (unsigned k = 0; k < MAP_KINDS; k++)
        json_object_set_new(bytes, map_kind_name(k), json_integer((json_int_t)f->bytes[k]));
    return json_pack(
        "{s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "bytes", bytes,
        "live_bytes", (json_int_t)f->live_bytes, "live_blocks", (json_int_t)f->live_blocks,
        "published_bytes", (json_int_t)f->published_bytes, "slabs", (json_int_t)f->n_slabs,
        "large_blocks", (json_int_t)f->n_large, "free_block_bytes", (json_int_t)f->free_block_bytes,
        "overhead_bytes", (json_int_t)f->overhead_bytes, "sparse_slabs", (json_int_t)f->n_sparse,
        "sparse_bytes", (json_int_t)f->sparse_bytes, "sparse_live_bytes",
        (json_int_t)f->sparse_live_bytes, "free_runs", (json_int_t)f->n_free_runs,
        "longest_free_bytes", (json_int_t)f->longest_free_bytes, "free_spans", map_spans_of(f));
}

int json_print_map(FILE *to, const struct map *map)
{
    return print(to, json_pack("{s:[{s:o, s:I, s:b, s:o, s:o, s:o}]}", "tenants", "name",
                               name_of(map->name), "unit_bytes", (json_int_t)UNIT_BYTES, "still",
                               map->is_still, "figures", map_figures_of(&map->figures), "clients",
                               map_clients_of(map), "segments", map_segments_of(map)));
}
