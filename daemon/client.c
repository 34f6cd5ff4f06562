/* SPDX-License-Identifier: Apache-2.0 */
/* client.c - see client.h. */
#include "daemon/client.h"

#include <string.h>
#include <sys/epoll.h>
#include <time.h>

#include "daemon/event.h"
#include "daemon/kept.h"
#include "daemon/retire.h"
#include "daemon/tenant.h"

/* So many ids rest before the first is used again, though a fresh id would rest all: each id that
 * was ever used costs 128 bytes of control page and books, and a thousand short lives must not cost
 * a hundred kilobytes. */
#define IDS_REST_MIN 256u

int client_table_init(struct client_table *table)
{
    *table = (struct client_table){.next_fresh = 1};
    table->by_id = calloc(CLIENT_IDS, sizeof(*table->by_id));
    table->freed = malloc(CLIENT_IDS * sizeof(*table->freed));
    if (table->by_id && table->freed)
        return 0;
    client_table_deinit(table);
    return -ENOMEM;
}

void client_table_deinit(struct client_table *table)
{
    acre_assert(table->n == 0);
    free(table->by_id);
    free(table->freed);
    *table = (struct client_table){0};
}

tag_t client_table_take_id(struct client_table *table)
{
    bool fresh = table->next_fresh <= CLIENT_ID_MAX;
    if (fresh && table->n_freed < IDS_REST_MIN)
        return (tag_t)table->next_fresh++;
    if (table->n_freed == 0)
        return 0;
    tag_t id = table->freed[table->freed_head];
    table->freed_head = (table->freed_head + 1) % CLIENT_IDS;
    table->n_freed--;
    acre_assert(table->by_id[id] == NULL);
    return id;
}

/* Of those freed, all but the oldest, as far as take_id() would go. */
tag_t client_table_resting(const struct client_table *table, uint32_t i)
{
    bool fresh = table->next_fresh + IDS_REST_MIN <= CLIENT_ID_MAX;
    uint32_t first = table->n_freed < IDS_REST_MIN ? 0 : table->n_freed - (IDS_REST_MIN - 1);
    if (!fresh || first + i >= table->n_freed)
        return 0;
    return table->freed[(table->freed_head + first + i) % CLIENT_IDS];
}

void client_table_give_id(struct client_table *table, tag_t id)
{
    acre_assert(id != TAG_FREE && id != TAG_HEAP && table->n_freed < CLIENT_IDS);
    table->freed[(table->freed_head + table->n_freed) % CLIENT_IDS] = id;
    table->n_freed++;
}

static struct holding *find_holding(struct client *client, uint32_t slot)
{
    for (uint32_t i = 0; i < client->n_holdings; i++)
        if (client->holdings[i].slot == slot)
            return &client->holdings[i];
    return NULL;
}

static struct holding *new_holding(struct client *client, uint32_t slot, uint32_t unit)
{
    uint32_t n = client->n_holdings;
    if (is_pow2_u64(n) || n == 0) { /* full at powers of two */
        client->holdings =
            reallocarray(client->holdings, n == 0 ? 1 : 2 * (size_t)n, sizeof(struct holding));
        acre_assert(client->holdings != NULL); /* at most 4 KiB */
    }
    client->n_holdings++;
    client->holdings[n] = (struct holding){.slot = slot, .lo = unit, .hi = unit};
    return &client->holdings[n];
}

void client_hold(struct client *client, uint32_t slot, uint32_t unit, uint32_t n)
{
    struct holding *h = find_holding(client, slot);
    if (!h)
        h = new_holding(client, slot, unit);
    h->n_units += n;
    h->lo = MIN(h->lo, unit);
    h->hi = MAX(h->hi, unit + n);
    client->n_units += n;
}

void client_unhold(struct client *client, uint32_t slot, uint32_t n)
{
    struct holding *h = find_holding(client, slot);
    acre_assert(h && h->n_units >= n && client->n_units >= n);
    h->n_units -= n;
    client->n_units -= n;
    if (h->n_units > 0)
        return;
    *h = client->holdings[--client->n_holdings];
    /* Keeps "capacity is the next power of two": a shrunk array may be larger, never smaller. */
    if (client->n_holdings == 0) {
        free(client->holdings);
        client->holdings = NULL;
    }
}

/* ---- a client's life ---- */

static uint64_t realtime_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void announce(struct tenant *t, const struct client *c, const char *name)
{
    struct control_client *page = &t->control->client[c->id];
    page->pid = (uint32_t)c->pid;
    page->granted_bytes = 0;
    page->attached_ns = realtime_ns();
    memcpy(page->name, name, sizeof(page->name));
    __atomic_store_n(&page->gen, c->gen, __ATOMIC_RELEASE);
    t->control->header.n_clients = t->clients.n;
}

static void enter(struct tenant *t, struct client *c, tag_t id, const struct books_client *what)
{
    c->tenant = t;
    c->id = id;
    c->gen = what->gen;
    c->pid = (pid_t)what->pid;
    c->uid = what->uid;
    c->life_no = what->life_no;
    t->clients.by_id[id] = c;
    t->clients.n++;
    t->n_changes++;
    t->core->n_clients++;
}

void client_watch(struct client *c, int pidfd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    c->pidfd = pidfd;
    if (pidfd >= 0)
        (void)epoll_ctl(c->tenant->core->bell_fd, EPOLL_CTL_ADD, pidfd, &event);
}

int client_add(struct tenant *t, const struct books_client *what, int life_fd, int pidfd,
               struct client **ret_client)
{
    struct books_client entry = *what;
    struct client *c = calloc(1, sizeof(*c));
    tag_t id = c ? client_table_take_id(&t->clients) : 0;
    if (id == 0) {
        int r = c ? -EAGAIN : -ENOMEM;
        free(c);
        return r;
    }
    entry.gen = t->books->client[id].gen + 1;
    entry.gen = entry.gen == 0 ? 1 : entry.gen; /* 0 is "none" */
    enter(t, c, id, &entry);
    c->life_fd = life_fd;
    client_watch(c, pidfd);
    books_set_client(t->books, id, &entry);
    announce(t, c, entry.name);
    *ret_client = c;
    return 0;
}

int client_restore(struct tenant *t, tag_t id, int life_fd)
{
    const struct books_client *what = &t->books->client[id];
    struct client *c = calloc(1, sizeof(*c));
    int r = c ? user_add(&t->core->users, what->uid, USER_LIVES) : -ENOMEM;
    if (r < 0) {
        free(c);
        return r;
    }
    enter(t, c, id, what);
    c->life_fd = life_fd;
    soft_pins(c, what->pins != 0);
    c->pidfd = -1; /* the pid may be another's by now */
    t->control->header.n_clients = t->clients.n;
    if (t->control->client[id].gen != c->gen)
        announce(t, c, what->name); /* it has not been told that it is one */
    t->control->client[id].granted_bytes = 0;
    return 0;
}

void client_table_restored(struct tenant *t)
{
    struct client_table *table = &t->clients;
    table->next_fresh = books_fresh_id(t->books);
    for (uint32_t id = 1; id < table->next_fresh; id++)
        if (!table->by_id[id])
            client_table_give_id(table, (tag_t)id);
}

void client_remove(struct client *c)
{
    struct tenant *t = c->tenant;
    acre_assert(c->n_units == 0 && c->n_holdings == 0 && !c->is_asked && c->n_tickets == 0);
    acre_assert(t->clients.by_id[c->id] == c);
    retire_forget(c);
    soft_pins(c, false);
    event_disarm(c);
    t->clients.by_id[c->id] = NULL;
    t->clients.n--;
    t->n_changes++;
    t->core->n_clients--;
    user_drop(&t->core->users, c->uid, USER_LIVES);
    t->control->header.n_clients = t->clients.n;
    memset(&t->control->client[c->id], 0, sizeof(t->control->client[c->id]));
    books_set_client_state(t->books, c->id, BOOKS_CLIENT_NONE);
    client_table_give_id(&t->clients, c->id);
    kept_end_life(t->core, c->life_no, c->life_fd);
    close_fd(&c->pidfd); /* leaves the epoll set with its last descriptor */
    free(c->holdings);
    free(c);
}

struct client *client_find(const struct tenant *t, uint64_t handle)
{
    struct client *c = t->is_open ? t->clients.by_id[client_handle_id(handle)] : NULL;
    return c && c->gen == client_handle_gen(handle) && c->state == CLIENT_LIVES ? c : NULL;
}
