/* SPDX-License-Identifier: Apache-2.0 */
/* config.c - see config.h. libconfuse reads and types the file; what the values mean is checked
 * here. */
#include "daemon/config.h"

#include <ctype.h>
#include <grp.h>
#include <pwd.h>
#include <stdarg.h>
#include <string.h>

#include <confuse.h>

#include "daemon/capacity.h"
#include "daemon/own.h"
#include "proto/bytes.h"

#define CONFIG_BYTES_MAX MIB(1)

/* Stands behind the file's text: libconfuse takes the end of file for a closing brace, but not an
 * option out of place. */
#define END_OPTION "acre_end_of_file"

/* libconfuse's callbacks carry no context: the sentence of the file that is being read. */
static char *sentence;
static size_t sentence_bytes;

static void take_sentence(cfg_t *cfg, const char *fmt, va_list args)
{
    if (!sentence || sentence[0]) /* the first error says what is wrong */
        return;
    int n = 0;
    if (cfg && cfg->filename && cfg->line)
        n = snprintf(sentence, sentence_bytes, "%s:%d: ", cfg->filename, cfg->line);
    else if (cfg && cfg->filename)
        n = snprintf(sentence, sentence_bytes, "%s: ", cfg->filename);
    if (n >= 0 && (size_t)n < sentence_bytes)
        (void)vsnprintf(sentence + n, sentence_bytes - (size_t)n, fmt, args);
    if (n >= 0 && strstr(sentence, END_OPTION))
        (void)snprintf(sentence + n, sentence_bytes - (size_t)n,
                       "the file ends inside of a tenant");
}

bool config_valid_name(const char *name)
{
    size_t n = strlen(name);
    bool is_start = true;
    if (n >= TENANT_NAME_BYTES)
        return false;
    for (; *name; name++) {
        if (!isalnum((unsigned char)*name) && !strchr(is_start ? "_-" : "._-/", *name))
            return false;
        is_start = *name == '/';
    }
    return !is_start;
}

/* ---- checks, at the line where the value stands ---- */

static int check_bytes(cfg_t *cfg, cfg_opt_t *opt)
{
    uint64_t bytes;
    const char *text = cfg_opt_getnstr(opt, cfg_opt_size(opt) - 1);
    if (bytes_parse(text, &bytes) < 0) {
        cfg_error(cfg, "%s = \"%s\" is no number of bytes (like \"64M\")", opt->name, text);
        return -1;
    }
    if (bytes < LIMIT_BYTES_MIN || bytes > HEAP_BYTES) {
        cfg_error(cfg, "%s = \"%s\" is not between 64K and 256G", opt->name, text);
        return -1;
    }
    return 0;
}

/* What all tenants read so far have ready; of a capacity that is said. */
static int check_sum(cfg_t *cfg)
{
    uint64_t capacity_bytes = UINT64_MAX, sum_bytes = 0, bytes = 0;
    if (cfg_getstr(cfg, "capacity"))
        (void)bytes_parse(cfg_getstr(cfg, "capacity"), &capacity_bytes);
    for (unsigned i = 0; i < cfg_size(cfg, "tenant"); i++) {
        (void)bytes_parse(cfg_getstr(cfg_getnsec(cfg, "tenant", i), "ready"), &bytes);
        sum_bytes += bytes;
    }
    if (sum_bytes <= capacity_bytes)
        return 0;
    cfg_error(cfg, "the tenants have more ready (%llu KiB in all) than the capacity",
              (unsigned long long)(sum_bytes >> 10));
    return -1;
}

static int check_capacity(cfg_t *cfg, cfg_opt_t *opt)
{
    return check_bytes(cfg, opt) < 0 ? -1 : check_sum(cfg);
}

/* 0 is nothing at all. */
static int check_bytes_or_none(cfg_t *cfg, cfg_opt_t *opt)
{
    uint64_t bytes;
    const char *text = cfg_opt_getnstr(opt, cfg_opt_size(opt) - 1);
    return bytes_parse(text, &bytes) == 0 && bytes == 0 ? 0 : check_bytes(cfg, opt);
}

static int check_weight(cfg_t *cfg, cfg_opt_t *opt)
{
    long weight = cfg_opt_getnint(opt, cfg_opt_size(opt) - 1);
    if (weight > 0 && weight <= (long)WEIGHT_MAX)
        return 0;
    cfg_error(cfg, "weight = %ld is not between 1 and %u", weight, WEIGHT_MAX);
    return -1;
}

static int check_pages(cfg_t *cfg, cfg_opt_t *opt)
{
    const char *text = cfg_opt_getnstr(opt, cfg_opt_size(opt) - 1);
    if (strcmp(text, "4k") == 0 || strcmp(text, "thp") == 0)
        return 0;
    cfg_error(cfg, "pages = \"%s\" is neither \"4k\" nor \"thp\"", text);
    return -1;
}

static int user_of(const char *text, uid_t *ret)
{
    char *end;
    const struct passwd *pw = getpwnam(text);
    unsigned long n = strtoul(text, &end, 10);
    if (!pw && (!isdigit((unsigned char)text[0]) || *end != 0 || n >= UINT32_MAX))
        return -ENOENT;
    *ret = pw ? pw->pw_uid : (uid_t)n;
    return 0;
}

static int group_of(const char *text, gid_t *ret)
{
    char *end;
    const struct group *gr = getgrnam(text);
    unsigned long n = strtoul(text, &end, 10);
    if (!gr && (!isdigit((unsigned char)text[0]) || *end != 0 || n >= UINT32_MAX))
        return -ENOENT;
    *ret = gr ? gr->gr_gid : (gid_t)n;
    return 0;
}

static int check_user(cfg_t *cfg, cfg_opt_t *opt)
{
    uid_t uid;
    const char *text = cfg_opt_getnstr(opt, cfg_opt_size(opt) - 1);
    if (strcmp(text, "*") == 0 || user_of(text, &uid) == 0)
        return 0;
    cfg_error(cfg, "there is no user \"%s\"", text);
    return -1;
}

/* Everybody would be no administrator, but a mistake. */
static int check_admin(cfg_t *cfg, cfg_opt_t *opt)
{
    if (strcmp(cfg_opt_getnstr(opt, cfg_opt_size(opt) - 1), "*") != 0)
        return check_user(cfg, opt);
    cfg_error(cfg, "%s = {\"*\"} would let everybody administrate", opt->name);
    return -1;
}

static int check_group(cfg_t *cfg, cfg_opt_t *opt)
{
    gid_t gid;
    const char *text = cfg_opt_getnstr(opt, cfg_opt_size(opt) - 1);
    if (group_of(text, &gid) == 0)
        return 0;
    cfg_error(cfg, "there is no group \"%s\"", text);
    return -1;
}

/* What has been checked key by key. */
static struct tenant_wish wish_of(cfg_t *sec)
{
    struct tenant_wish wish = {.limits = {.high_bytes = HIGH_NONE}};
    (void)bytes_parse(cfg_getstr(sec, "min"), &wish.limits.min_bytes);
    (void)bytes_parse(cfg_getstr(sec, "max"), &wish.limits.max_bytes);
    if (cfg_getstr(sec, "high"))
        (void)bytes_parse(cfg_getstr(sec, "high"), &wish.limits.high_bytes);
    wish.limits.weight = (uint32_t)cfg_getint(sec, "weight");
    (void)bytes_parse(cfg_getstr(sec, "ready"), &wish.ready_bytes);
    wish.pages = strcmp(cfg_getstr(sec, "pages"), "thp") == 0 ? PAGES_THP : PAGES_4K;
    return wish;
}

static bool is_pattern(cfg_t *sec)
{
    return strstr(cfg_title(sec), OWN_MARK) != NULL;
}

/* Nobody knows how many tenants it makes. */
static int check_pattern(cfg_t *cfg, cfg_t *sec, const struct tenant_wish *wish)
{
    unsigned n = 0;
    for (unsigned i = 0; i < cfg_size(cfg, "tenant"); i++)
        n += is_pattern(cfg_getnsec(cfg, "tenant", i));
    if (wish->limits.min_bytes > 0 || wish->ready_bytes > 0)
        cfg_error(cfg,
                  "tenant \"%s\" is one for each user and cannot have %s: nobody could say what "
                  "that is in all",
                  cfg_title(sec), wish->limits.min_bytes > 0 ? "min" : "ready");
    else if (cfg_size(sec, "users") > 0 || cfg_size(sec, "groups") > 0)
        cfg_error(cfg,
                  "tenant \"%s\" is one for each user, who alone may attach: no users or groups",
                  cfg_title(sec));
    else if (n > 1)
        cfg_error(cfg, "tenant \"%s\" is the second one with %s in its name", cfg_title(sec),
                  OWN_MARK);
    else
        return 0;
    return -1;
}

static int check_tenant(cfg_t *cfg, cfg_opt_t *opt)
{
    cfg_t *sec = cfg_opt_getnsec(opt, cfg_opt_size(opt) - 1);
    if (!config_valid_name(cfg_title(sec)) && !own_valid_pattern(cfg_title(sec))) {
        cfg_error(cfg,
                  "\"%s\" cannot be a tenant's name (1 to 63 letters, digits, '.', '_', '-', "
                  "'/' between a group and what is in it, and one %%u behind the last '/')",
                  cfg_title(sec));
        return -1;
    }
    if (!cfg_getstr(sec, "max")) {
        cfg_error(cfg, "tenant \"%s\" has no max", cfg_title(sec));
        return -1;
    }
    const struct tenant_wish wish = wish_of(sec);
    const char *wrong = limits_wrong(&wish.limits, wish.ready_bytes);
    if (wrong) {
        cfg_error(cfg, "tenant \"%s\" has %s", cfg_title(sec), wrong);
        return -1;
    }
    return is_pattern(sec) ? check_pattern(cfg, sec, &wish) : check_sum(cfg);
}

/* ---- taking over ---- */

static int take_list(cfg_t *sec, const char *users, const char *groups, struct access_list *ret)
{
    int r = 0;
    for (unsigned i = 0; r == 0 && i < cfg_size(sec, users); i++) {
        const char *text = cfg_getnstr(sec, users, i);
        uid_t uid;
        if (strcmp(text, "*") == 0)
            ret->everyone = true;
        else if ((r = user_of(text, &uid)) == 0)
            r = access_add_user(ret, uid);
    }
    for (unsigned i = 0; r == 0 && i < cfg_size(sec, groups); i++) {
        gid_t gid;
        if ((r = group_of(cfg_getnstr(sec, groups, i), &gid)) == 0)
            r = access_add_group(ret, gid);
    }
    return r;
}

static int take_access(cfg_t *sec, struct access *ret)
{
    int r = take_list(sec, "read_users", "read_groups", &ret->of[ACCESS_LOOK]);
    if (r == 0)
        r = take_list(sec, "users", "groups", &ret->of[ACCESS_ATTACH]);
    if (r == 0)
        r = take_list(sec, "admin_users", "admin_groups", &ret->of[ACCESS_ADMIN]);
    return r;
}

static int take_tenants(cfg_t *cfg, struct config *ret)
{
    unsigned n = cfg_size(cfg, "tenant");
    ret->tenants = calloc(n + 1, sizeof(*ret->tenants));
    if (!ret->tenants)
        return -ENOMEM;
    for (unsigned i = 0; i < n; i++) {
        cfg_t *sec = cfg_getnsec(cfg, "tenant", i);
        struct config_tenant *t = &ret->tenants[ret->n_tenants++];
        strcpy(t->name, cfg_title(sec));
        t->line = (unsigned)sec->line;
        t->wish = wish_of(sec);
        int r = take_access(sec, &t->access);
        if (r < 0)
            return r;
    }
    return 0;
}

/* ---- groups ---- */

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct config_tenant *)a)->name, ((const struct config_tenant *)b)->name);
}

static int compare_name(const void *name, const void *tenant)
{
    return strcmp(name, ((const struct config_tenant *)tenant)->name);
}

struct config_tenant *config_find(const struct config *config, const char *name)
{
    return bsearch(name, config->tenants, config->n_tenants, sizeof(*config->tenants),
                   compare_name);
}

static bool is_plain(const struct config_tenant *t)
{
    return t->wish.ready_bytes == 0 && t->wish.pages == PAGES_4K &&
           access_list_is_empty(&t->access.of[ACCESS_ATTACH]);
}

/* What is promised to each and all below it, from the leaves up. NULL, or what is wrong with
 * *ret. */
static const char *sum_promises(struct config *c, uint64_t *below_bytes, struct config_tenant **ret)
{
    char name[TENANT_NAME_BYTES];
    for (uint32_t i = c->n_tenants; i-- > 0;) {
        struct config_tenant *t = *ret = &c->tenants[i];
        bool is_member = tenant_group_name(t->name, name);
        struct config_tenant *group = is_member ? config_find(c, name) : NULL;
        uint64_t promised_bytes = MAX(t->wish.limits.min_bytes, below_bytes[i]);
        if (is_member && !group)
            return "is in no group: there is no tenant of the name before its last '/'";
        if (t->is_group && !is_plain(t))
            return "is a group (others are below it) and has no heap: no ready, pages, users or "
                   "groups";
        if (promised_bytes > t->wish.limits.max_bytes)
            return "is a group whose tenants have more min in all than its max";
        if (group) {
            group->is_group = true;
            below_bytes[group - c->tenants] += promised_bytes;
        } else {
            c->min_bytes += promised_bytes;
        }
    }
    return NULL;
}

static int check_tree(struct config *c, const char *path, char *text, size_t n_text)
{
    struct config_tenant *t = NULL;
    uint64_t *below_bytes = calloc(c->n_tenants + 1, sizeof(*below_bytes));
    if (!below_bytes)
        return -ENOMEM;
    qsort(c->tenants, c->n_tenants, sizeof(*c->tenants), compare_names);
    const char *why = sum_promises(c, below_bytes, &t);
    free(below_bytes);
    if (why)
        (void)snprintf(text, n_text, "%s:%u: tenant \"%s\" %s", path, t->line, t->name, why);
    return why ? -EINVAL : 0;
}

/* It is no tenant, but how tenants are. */
static void take_pattern(struct config *c)
{
    uint32_t i = 0;
    while (i < c->n_tenants && !strstr(c->tenants[i].name, OWN_MARK))
        i++;
    if (i == c->n_tenants)
        return;
    c->own = c->tenants[i];
    c->n_tenants--;
    memmove(c->tenants + i, c->tenants + i + 1, (c->n_tenants - i) * sizeof(*c->tenants));
}

/* The file and the end mark, as a stream. text belongs to it. */
static int open_text(const char *path, char **ret_text, FILE **ret_stream)
{
    FILE *f = fopen(path, "re");
    if (!f)
        return -errno;
    char *text = malloc(CONFIG_BYTES_MAX + sizeof("\n" END_OPTION " = true\n"));
    size_t n = text ? fread(text, 1, CONFIG_BYTES_MAX, f) : 0;
    int r = !text ? -ENOMEM : ferror(f) ? -EIO : n == CONFIG_BYTES_MAX ? -EFBIG : 0;
    fclose(f);
    if (r == 0 && memchr(text, 0, n)) /* what stands behind it would not be read */
        r = -EINVAL;
    if (r == 0) {
        strcpy(text + n, "\n" END_OPTION " = true\n");
        *ret_stream = fmemopen(text, strlen(text), "r");
        r = *ret_stream ? 0 : -errno;
    }
    if (r < 0)
        free(text);
    else
        *ret_text = text;
    return r;
}

static int parse_file(cfg_t *cfg, const char *path, char *text, size_t n_text)
{
    char *content = NULL;
    FILE *stream = NULL;
    int r = open_text(path, &content, &stream);
    if (r == 0) {
        cfg->filename = strdup(path); /* for the sentences; cfg_free() frees it */
        r = cfg_parse_fp(cfg, stream) == CFG_SUCCESS ? 0 : -EINVAL;
        fclose(stream);
        free(content);
    }
    if (r < 0 && text[0] == 0)
        (void)snprintf(text, n_text, "%s: %s", path, strerror(-r));
    return r;
}

static void set_checks(cfg_t *cfg)
{
    static const char *const users[] = {"tenant|users", "tenant|read_users"};
    static const char *const admins[] = {"tenant|admin_users", "admin_users"};
    static const char *const groups[] = {"tenant|groups", "tenant|read_groups",
                                         "tenant|admin_groups", "admin_groups"};
    (void)cfg_set_validate_func(cfg, "capacity", check_capacity);
    (void)cfg_set_validate_func(cfg, "tenant", check_tenant);
    (void)cfg_set_validate_func(cfg, "tenant|max", check_bytes);
    (void)cfg_set_validate_func(cfg, "tenant|min", check_bytes_or_none);
    (void)cfg_set_validate_func(cfg, "tenant|high", check_bytes);
    (void)cfg_set_validate_func(cfg, "tenant|weight", check_weight);
    (void)cfg_set_validate_func(cfg, "tenant|ready", check_bytes_or_none);
    (void)cfg_set_validate_func(cfg, "tenant|pages", check_pages);
    for (size_t i = 0; i < ARRAY_LEN(users); i++)
        (void)cfg_set_validate_func(cfg, users[i], check_user);
    for (size_t i = 0; i < ARRAY_LEN(admins); i++)
        (void)cfg_set_validate_func(cfg, admins[i], check_admin);
    for (size_t i = 0; i < ARRAY_LEN(groups); i++)
        (void)cfg_set_validate_func(cfg, groups[i], check_group);
}

int config_read(struct config *ret, const char *path, char *text, size_t n_text)
{
    cfg_opt_t tenant[] = {CFG_STR("min", "0", CFGF_NONE),
                          CFG_STR("high", NULL, CFGF_NODEFAULT),
                          CFG_STR("max", NULL, CFGF_NODEFAULT),
                          CFG_INT("weight", WEIGHT_DEFAULT, CFGF_NONE),
                          CFG_STR("ready", "0", CFGF_NONE),
                          CFG_STR("pages", "4k", CFGF_NONE),
                          CFG_STR_LIST("users", NULL, CFGF_NONE),
                          CFG_STR_LIST("groups", NULL, CFGF_NONE),
                          CFG_STR_LIST("read_users", NULL, CFGF_NONE),
                          CFG_STR_LIST("read_groups", NULL, CFGF_NONE),
                          CFG_STR_LIST("admin_users", NULL, CFGF_NONE),
                          CFG_STR_LIST("admin_groups", NULL, CFGF_NONE),
                          CFG_END()};
    cfg_opt_t options[] = {CFG_STR("capacity", NULL, CFGF_NODEFAULT),
                           CFG_BOOL(END_OPTION, cfg_false, CFGF_NONE),
                           CFG_STR_LIST("admin_users", NULL, CFGF_NONE),
                           CFG_STR_LIST("admin_groups", NULL, CFGF_NONE),
                           CFG_SEC("tenant", tenant, CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES),
                           CFG_END()};
    cfg_t *cfg = cfg_init(options, CFGF_NONE);
    *ret = (struct config){0};
    if (!cfg)
        return -ENOMEM;
    text[0] = 0;
    sentence = text;
    sentence_bytes = n_text;
    (void)cfg_set_error_function(cfg, take_sentence);
    set_checks(cfg);
    int r = parse_file(cfg, path, text, n_text);
    if (r == 0 && cfg_getstr(cfg, "capacity"))
        (void)bytes_parse(cfg_getstr(cfg, "capacity"), &ret->capacity_bytes);
    if (r == 0)
        r = take_list(cfg, "admin_users", "admin_groups", &ret->admins);
    if (r == 0)
        r = take_tenants(cfg, ret);
    if (r == 0)
        r = check_tree(ret, path, text, n_text);
    if (r == 0)
        take_pattern(ret);
    cfg_free(cfg);
    sentence = NULL;
    if (r < 0)
        config_deinit(ret);
    return r;
}

void config_deinit(struct config *config)
{
    for (uint32_t i = 0; i < config->n_tenants; i++)
        access_deinit(&config->tenants[i].access);
    access_deinit(&config->own.access);
    access_list_deinit(&config->admins);
    free(config->tenants);
    *config = (struct config){0};
}

int config_complete(struct config *config, uint64_t memory_bytes)
{
    config->asked_bytes = config->capacity_bytes;
    config->capacity_bytes = capacity_backed(config->asked_bytes, memory_bytes);
    if (config->n_tenants > 0 || config->own.name[0])
        return 0;
    free(config->tenants);
    config->tenants = calloc(1, sizeof(*config->tenants));
    if (!config->tenants)
        return -ENOMEM;
    strcpy(config->tenants[0].name, OWN_DEFAULT);
    config->tenants[0].wish.limits = (struct limits){
        .max_bytes = config->capacity_bytes, .high_bytes = HIGH_NONE, .weight = WEIGHT_DEFAULT};
    config->n_tenants = 1;
    config->is_bare = true;
    return 0;
}
