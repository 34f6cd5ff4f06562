/* SPDX-License-Identifier: Apache-2.0 */
/* address.c - see address.h. */
#include "proto/address.h"

#include <limits.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

__attribute__((format(printf, 3, 4))) static int failed(int error, char *ret_text, const char *fmt,
                                                        ...)
{
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(ret_text, MSG_TEXT_BYTES, fmt, args);
    va_end(args);
    return -error;
}

static int put_path(char *ret_path, char *ret_text, const char *path)
{
    size_t n = strlen(path);

    if (n == 0 || n >= ADDRESS_BYTES)
        return failed(EINVAL, ret_text,
                      "the socket path \"%.160s\" is empty or longer than %u bytes", path,
                      ADDRESS_BYTES - 1);
    memcpy(ret_path, path, n + 1);
    return 0;
}

static int check_dir(const char *dir, bool make_dir, char *ret_text)
{
    struct stat st;

    if (make_dir && mkdir(dir, 0700) < 0 && errno != EEXIST)
        return failed(errno, ret_text, "cannot make %s: %s", dir, strerror(errno));
    if (lstat(dir, &st) < 0)
        return errno == ENOENT && !make_dir
                   ? 0
                   : failed(errno, ret_text, "cannot look at %s: %s", dir, strerror(errno));
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077) != 0)
        return failed(EACCES, ret_text,
                      "%s is not a directory of mode 0700 that belongs to user %u", dir, geteuid());
    return 0;
}

int address_user(bool make_dir, char *ret_path, char *ret_text)
{
    const char *runtime = secure_getenv("XDG_RUNTIME_DIR");
    char dir[PATH_MAX], path[PATH_MAX + 16];

    if (runtime && runtime[0] == '/')
        (void)snprintf(dir, sizeof(dir), "%s/acre", runtime);
    else
        (void)snprintf(dir, sizeof(dir), "/tmp/acre-%u", geteuid());
    (void)snprintf(path, sizeof(path), "%s/acred.sock", dir);
    int r = put_path(ret_path, ret_text, path);
    return r < 0 ? r : check_dir(dir, make_dir, ret_text);
}

int address_find(const char *given, bool make_dir, char *ret_path, enum address_kind *ret_kind,
                 char *ret_text)
{
    const char *env = secure_getenv("ACRE_SOCKET");
    struct stat st;

    *ret_kind = ADDRESS_GIVEN;
    if (given || env)
        return put_path(ret_path, ret_text, given ? given : env);
    *ret_kind = ADDRESS_SYSTEM;
    if (lstat(ADDRESS_SYSTEM_DIR, &st) == 0 || errno != ENOENT)
        return put_path(ret_path, ret_text, ADDRESS_SYSTEM_PATH);
    *ret_kind = ADDRESS_USER;
    return address_user(make_dir, ret_path, ret_text);
}
