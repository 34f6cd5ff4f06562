/* SPDX-License-Identifier: Apache-2.0 */
/* tenant.c - see tenant.h. */
#include "tenant.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/bytes.h"
#include "tools/look/survey.h"
#include "tools/look/table.h"

#define LOOK_PAUSE_US 100000

/* ---- words ---- */

static int wrong(char why[MSG_TEXT_BYTES], const char *word, const char *what)
{
    (void)snprintf(why, MSG_TEXT_BYTES, "%.100s %s", word, what);
    return -EINVAL;
}

static int parse_weight(const char *text, uint32_t *ret)
{
    char *end;
    unsigned long weight = strtoul(text, &end, 10);

    if (text[0] < '0' || text[0] > '9' || *end != 0 || weight < 1 || weight > 10000)
        return -EINVAL;
    *ret = (uint32_t)weight;
    return 0;
}

static int parse_limit(struct msg_request *req, const char *word, char why[MSG_TEXT_BYTES])
{
    static const char *const keys[] = {"min=", "high=", "max="};
    uint64_t *const values[] = {&req->tenant_set.min_bytes, &req->tenant_set.high_bytes,
                                &req->tenant_set.max_bytes};

    for (unsigned i = 0; i < ARRAY_LEN(keys); i++) {
        const char *text = word + strlen(keys[i]);
        if (strncmp(word, keys[i], strlen(keys[i])) != 0)
            continue;
        req->tenant_set.which |= SET_MIN << i;
        *values[i] = UINT64_MAX;
        if (SET_MIN << i == SET_HIGH && strcmp(text, "none") == 0)
            return 0;
        return bytes_parse(text, values[i]) == 0
                   ? 0
                   : wrong(why, word, "has no number of bytes (like \"64M\")");
    }
    if (strncmp(word, "weight=", 7) != 0)
        return wrong(why, word, "is none of min=, high=, max=, weight=");
    req->tenant_set.which |= SET_WEIGHT;
    return parse_weight(word + 7, &req->tenant_set.weight) == 0
               ? 0
               : wrong(why, word, "is not between 1 and 10000");
}

int tenant_parse(struct msg_request *ret, char *const words[], int n_words,
                 char why[MSG_TEXT_BYTES])
{
    int r = 0;

    *ret = (struct msg_request){.op = MSG_TENANT_SET};
    if (strlen(words[0]) >= sizeof(ret->tenant_set.tenant))
        return wrong(why, words[0], "is too long for a tenant's name");
    strcpy(ret->tenant_set.tenant, words[0]);
    for (int i = 1; i < n_words && r == 0; i++)
        r = parse_limit(ret, words[i], why);
    return r;
}

/* ---- how far it has come ---- */

static int look(struct peer *peer, const char *name, struct survey_tenant *ret)
{
    struct survey survey;
    int r = survey_take(&survey, peer, NULL, SURVEY_BRIEF);
    bool found = false;

    for (size_t i = 0; r == 0 && i < survey.n_tenants; i++)
        if (strcmp(survey.tenants[i].name, name) == 0) {
            *ret = survey.tenants[i];
            found = true;
        }
    survey_deinit(&survey);
    if (r == 0 && !found)
        r = peer_fail(peer, -ENOENT, "tenant %s has gone", name);
    else if (r == 0 && ret->error)
        r = peer_fail(peer, ret->error, "tenant %s: %s", name, ret->why);
    return r;
}

static uint64_t above_max(const struct survey_tenant *t)
{
    return t->sealed_bytes - MIN(t->sealed_bytes, t->max_bytes);
}

static void print(const struct survey_tenant *t)
{
    char max[24], has[24], above[24];

    printf("%s: max %s, has %s in segments", t->name, table_bytes(max, t->max_bytes),
           table_bytes(has, t->sealed_bytes));
    if (above_max(t) > 0)
        printf("; cannot grow until %s have come back", table_bytes(above, above_max(t)));
    putchar('\n');
}

static void progress(const struct survey_tenant *t)
{
    char has[24], above[24];

    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r\033[K%s: has %s, %s to come back", t->name,
                table_bytes(has, t->sealed_bytes), table_bytes(above, above_max(t)));
}

int tenant_set(struct peer *peer, struct msg_request *req, bool waits)
{
    struct survey_tenant t = {.n_clients = 0};
    struct msg_reply reply;
    char name[TENANT_NAME_BYTES];

    strcpy(name, req->tenant_set.tenant);
    int r = peer_call(peer, req, &reply, NULL);
    if (r == 0)
        r = look(peer, name, &t);
    while (r == 0 && waits && above_max(&t) > 0) {
        progress(&t);
        (void)usleep(LOOK_PAUSE_US);
        r = look(peer, name, &t);
    }
    if (waits && isatty(STDERR_FILENO))
        fputs("\r\033[K", stderr);
    if (r == 0)
        print(&t);
    return r;
}

/* ---- drop ---- */

int tenant_drop(struct peer *peer, const char *name)
{
    struct msg_request req = {.op = MSG_TENANT_DROP};
    struct msg_reply reply;
    char bytes[24];

    if (strlen(name) >= sizeof(req.tenant_drop.tenant))
        return peer_fail(peer, -EINVAL, "a tenant's name has at most %zu bytes",
                         sizeof(req.tenant_drop.tenant) - 1);
    strcpy(req.tenant_drop.tenant, name);
    int r = peer_call(peer, &req, &reply, NULL);
    if (r == 0)
        printf("%s: dropped, %s freed\n", name, table_bytes(bytes, reply.tenant_drop.freed_bytes));
    return r;
}
