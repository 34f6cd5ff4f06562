/* SPDX-License-Identifier: Apache-2.0 */
/* replay.c - libFuzzer's place where the compiler has none: feeds files, and those of folders, to
 * the target, once each. */
#include <dirent.h>
#include <limits.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"

#define INPUT_BYTES_MAX MIB(1)

static unsigned n_fed;

static void feed_file(const char *path)
{
    FILE *f = fopen(path, "re");
    uint8_t *data = malloc(INPUT_BYTES_MAX);
    acre_assert(f != NULL && data != NULL);
    size_t n = fread(data, 1, INPUT_BYTES_MAX, f);
    fclose(f);
    uint8_t *exact = malloc(n + 1);
    acre_assert(exact != NULL);
    memcpy(exact, data, n);
    free(data);
    (void)LLVMFuzzerTestOneInput(exact, n);
    free(exact);
    n_fed++;
}

/* Which one it was, should it end here. */
static void feed(const char *path)
{
    (void)fprintf(stderr, "%s\n", path);
    feed_file(path);
}

static void feed_folder(DIR *d, const char *folder)
{
    char path[PATH_MAX];
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.')
            continue;
        (void)snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
        feed(path);
    }
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        DIR *d = opendir(argv[i]);
        if (d)
            feed_folder(d, argv[i]);
        else
            feed(argv[i]);
        if (d)
            closedir(d);
    }
    printf("%u inputs\n", n_fed);
    return n_fed == 0;
}
