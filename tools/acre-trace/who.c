/* SPDX-License-Identifier: Apache-2.0 */
/* who.c - the clients of the last looks: those that are gone stay until they are forgotten. */
#include "who.h"

#include <stdlib.h>
#include <string.h>

#include "tools/look/survey.h"

int who_init(struct who *who, const char *address)
{
    *who = (struct who){.n = 0};
    int r = peer_open(&who->peer, address);
    return r < 0 ? r : who_look(who);
}

void who_deinit(struct who *who)
{
    peer_close(&who->peer);
    free(who->list);
    *who = (struct who){.peer = {.sock = -1}};
}

static struct who_client *find(struct who *who, const struct survey_client *c, const char *tenant)
{
    for (size_t i = 0; i < who->n; i++) {
        struct who_client *w = &who->list[i];
        if (w->id == c->id && w->gen == c->gen && strcmp(w->tenant, tenant) == 0)
            return w;
    }
    return NULL;
}

static struct who_client *add(struct who *who, const struct survey_client *c, const char *tenant)
{
    if (who->n == who->capacity) {
        size_t capacity = 2 * who->capacity + 64;
        struct who_client *list = realloc(who->list, capacity * sizeof(*list));
        if (!list)
            return NULL;
        who->list = list;
        who->capacity = capacity;
    }
    struct who_client *w = &who->list[who->n++];
    *w = (struct who_client){.pid = c->pid, .id = c->id, .gen = c->gen};
    (void)snprintf(w->tenant, sizeof(w->tenant), "%s", tenant);
    memcpy(w->name, c->name, sizeof(w->name));
    return w;
}

static int note(struct who *who, const struct survey_client *c, const char *tenant)
{
    struct who_client *w = find(who, c, tenant);

    if (!w)
        w = add(who, c, tenant);
    if (!w)
        return -ENOMEM;
    w->is_gone = false;
    w->granted_bytes = c->granted_bytes;
    return 0;
}

int who_look(struct who *who)
{
    struct survey survey;
    int r = survey_take(&survey, &who->peer, NULL, SURVEY_CLIENTS);

    for (size_t i = 0; r == 0 && i < who->n; i++)
        who->list[i].is_gone = true;
    for (size_t t = 0; r == 0 && t < survey.n_tenants; t++)
        for (size_t i = 0; r == 0 && i < survey.tenants[t].n_clients; i++)
            r = note(who, &survey.tenants[t].clients[i], survey.tenants[t].name);
    survey_deinit(&survey);
    return r;
}

struct who_client *who_next(struct who *who, uint32_t pid, struct who_client *after)
{
    for (size_t i = after ? (size_t)(after - who->list) + 1 : 0; i < who->n; i++)
        if (who->list[i].pid == pid)
            return &who->list[i];
    return NULL;
}

void who_forget(struct who *who, uint32_t pid)
{
    for (size_t i = who->n; i-- > 0;)
        if (who->list[i].pid == pid)
            who->list[i] = who->list[--who->n];
}
