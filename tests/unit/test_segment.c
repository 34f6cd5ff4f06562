/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-labels: valgrind */
#include "shm/segment.h"
#include "shm/sizeclass.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <cmocka.h>

#define HEAP_ID 0x1234567890abcdefull
#define SLOT    3u
#define N_UNITS 100u

static struct segment_shape shape;

static int new_segment(void)
{
    int fd = -1;
    assert_int_equal(segment_create("test", SLOT, HEAP_ID, N_UNITS, &fd, &shape), 0);
    return fd;
}

static int check(int fd)
{
    struct segment_shape s;
    const char *why = NULL;
    int r = segment_check(fd, SLOT, HEAP_ID, &s, &why);
    assert_true((r == 0) == (why == NULL));
    return r;
}

/* A segment whose header field at `off` has another value is refused. */
static void refused_with(size_t off, uint64_t value, size_t n)
{
    CLEANUP_FD int fd = new_segment();
    assert_int_equal(check(fd), 0);
    assert_int_equal(pwrite(fd, &value, n, (off_t)off), n);
    assert_int_equal(check(fd), -EPROTO);
}
#define REFUSED_WITH(field, value)                                                                 \
    refused_with(offsetof(struct seg_header, field), (value),                                      \
                 sizeof(((struct seg_header *)0)->field))

/* An unsealed copy of a good segment, to be sealed as the test likes. */
static int unsealed_copy(uint64_t size_bytes)
{
    struct seg_header header;
    CLEANUP_FD int good = new_segment();
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size_bytes), 0);
    assert_int_equal(pread(good, &header, sizeof(header), 0), sizeof(header));
    assert_int_equal(pwrite(fd, &header, sizeof(header), 0), sizeof(header));
    return fd;
}

static void a_segment_cannot_be_resized_or_unsealed(void **state)
{
    (void)state;
    CLEANUP_FD int fd = new_segment();
    off_t size = (off_t)(N_UNITS * UNIT_BYTES);
    char byte = 1;

    assert_int_equal(ftruncate(fd, size + 4096), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(ftruncate(fd, size - 4096), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(pwrite(fd, &byte, 1, size), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(fallocate(fd, 0, size, 4096), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
    assert_int_equal(errno, EPERM);
}

static void holes_can_be_punched_into_a_sealed_segment(void **state)
{
    (void)state;
    CLEANUP_FD int fd = new_segment();
    char byte = 1;
    off_t off = (off_t)(50 * UNIT_BYTES);

    assert_int_equal(pwrite(fd, &byte, 1, off), 1);
    assert_int_equal(
        fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, (off_t)UNIT_BYTES), 0);
    assert_int_equal(pread(fd, &byte, 1, off), 1);
    assert_int_equal(byte, 0);
}

static void a_fresh_segment_is_believed_and_has_the_shape_it_was_made_with(void **state)
{
    (void)state;
    CLEANUP_FD int fd = new_segment();
    struct segment_shape s;
    const char *why;

    assert_int_equal(segment_check(fd, SLOT, HEAP_ID, &s, &why), 0);
    assert_int_equal(s.size_bytes, N_UNITS * UNIT_BYTES);
    assert_int_equal(s.size_bytes, shape.size_bytes);
    assert_int_equal(s.n_units, shape.n_units);
    assert_int_equal(s.n_meta, shape.n_meta);
    assert_int_equal(s.n_table, shape.n_table);
    assert_int_equal(s.entries_off, shape.entries_off);
    assert_int_equal(s.tags_off, shape.tags_off);
    assert_int_equal(s.hints_off, shape.hints_off);
    assert_int_equal(s.soft_off, shape.soft_off);
}

static void a_fresh_segment_keeps_little_memory(void **state)
{
    (void)state;
    int fd = -1;
    struct stat st;
    assert_int_equal(segment_create("test", SLOT, HEAP_ID, SLOT_UNITS, &fd, &shape), 0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_true(st.st_blocks * 512 <= 4 * 4096);
    close_fd(&fd);
}

static void meta_units_are_marked_and_all_others_free(void **state)
{
    (void)state;
    CLEANUP_FD int fd = new_segment();
    void *base = mmap(NULL, shape.size_bytes, PROT_READ, MAP_SHARED, fd, 0);
    assert_true(base != MAP_FAILED);
    for (uint32_t u = 0; u < N_UNITS; u++) {
        unsigned expected = u < shape.n_meta ? U_META : U_FREE;
        assert_int_equal(unit_entry_state(segment_entries(base, &shape)[u]), expected);
        assert_int_equal(segment_tags(base, &shape)[u], TAG_FREE);
        assert_int_equal(segment_hints(base, &shape)[u], 0);
    }
    munmap(base, shape.size_bytes);
}

static void another_magic_version_or_layout_is_refused(void **state)
{
    (void)state;
    REFUSED_WITH(magic, SEG_MAGIC + 1);
    REFUSED_WITH(version, LAYOUT_VERSION + 1);
    REFUSED_WITH(fingerprint, 0);
}

static void another_heap_or_slot_is_refused(void **state)
{
    (void)state;
    CLEANUP_FD int fd = new_segment();
    struct segment_shape s;
    const char *why;

    REFUSED_WITH(heap_id, HEAP_ID + 1);
    REFUSED_WITH(slot, SLOT + 1);
    assert_int_equal(segment_check(fd, SLOT + 1, HEAP_ID, &s, &why), -EPROTO);
    assert_int_equal(segment_check(fd, SLOT, HEAP_ID + 1, &s, &why), -EPROTO);
}

static void a_header_that_lies_about_sizes_or_tables_is_refused(void **state)
{
    (void)state;
    REFUSED_WITH(size_bytes, (N_UNITS + 1) * UNIT_BYTES);
    REFUSED_WITH(n_units, N_UNITS - 1);
    REFUSED_WITH(n_units, 0);
    REFUSED_WITH(n_units, UINT32_MAX);
    REFUSED_WITH(n_meta, 0);
    REFUSED_WITH(n_table, UINT32_MAX);
    REFUSED_WITH(entries_off, 0);
    REFUSED_WITH(tags_off, UINT32_MAX);
    REFUSED_WITH(hints_off, 0);
}

static void an_unsealed_or_half_sealed_memfd_is_refused(void **state)
{
    (void)state;
    CLEANUP_FD int fd = unsealed_copy(N_UNITS * UNIT_BYTES);
    assert_int_equal(check(fd), -EPROTO);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW), 0);
    assert_int_equal(check(fd), -EPROTO);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    assert_int_equal(check(fd), -EPROTO);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL), 0);
    assert_int_equal(check(fd), 0);
}

static void a_memfd_sealed_against_writing_is_refused(void **state)
{
    (void)state;
    CLEANUP_FD int fd = unsealed_copy(N_UNITS * UNIT_BYTES);
    int seals = F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL;
    assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
    assert_int_equal(check(fd), -EPROTO);
}

static void a_file_shorter_or_longer_than_its_header_says_is_refused(void **state)
{
    (void)state;
    for (unsigned n = N_UNITS - 1; n <= N_UNITS + 1; n += 2) {
        CLEANUP_FD int fd = unsealed_copy(n * UNIT_BYTES);
        assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL), 0);
        assert_int_equal(check(fd), -EPROTO);
    }
}

static void what_is_no_memfd_is_refused(void **state)
{
    (void)state;
    int fd[2];
    assert_int_equal(pipe(fd), 0);
    assert_int_equal(check(fd[0]), -EPROTO);
    close(fd[0]);
    close(fd[1]);
    CLEANUP_FD int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    assert_int_equal(check(null), -EPROTO);
    assert_int_equal(check(-1), -EPROTO);
}

static void a_read_only_description_cannot_be_mapped_for_writing(void **state)
{
    (void)state;
    CLEANUP_FD int fd = new_segment();
    CLEANUP_FD int ro = -1;

    assert_int_equal(segment_reopen_readonly(fd, &ro), 0);
    assert_int_equal(check(ro), 0);
    assert_true(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ro, 0) == MAP_FAILED);
    assert_int_equal(errno, EACCES);
    assert_int_equal(pwrite(ro, "x", 1, 0), -1);
    assert_int_equal(fcntl(ro, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
}

/* As another user: 0 if the read-only descriptor cannot be turned into a writable one. */
static int try_to_reopen_for_writing(int ro)
{
    char path[32];
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", ro);
    if (setgid(65534) < 0 || setuid(65534) < 0)
        return 2;
    return open(path, O_RDWR) < 0 && errno == EACCES ? 0 : 1;
}

static void another_user_cannot_reopen_it_for_writing(void **state)
{
    (void)state;
    CLEANUP_FD int fd = new_segment();
    CLEANUP_FD int ro = -1;
    struct stat st;
    int status;

    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    if (geteuid() != 0)
        return; /* only root can become another user */
    assert_int_equal(segment_reopen_readonly(fd, &ro), 0);
    pid_t child = fork();
    if (child == 0)
        _exit(try_to_reopen_for_writing(ro));
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

/* Tables are in order, do not overlap and end before the first usable unit. */
static void assert_shape_valid(const struct segment_shape *s)
{
    assert_int_equal(s->entries_off, SEG_HEADER_BYTES);
    assert_true(s->hints_off >= s->entries_off + s->n_table * sizeof(uint64_t));
    assert_int_equal(s->entries_off % 4096, 0);
    assert_int_equal(s->hints_off % 4096, 0);
    assert_true(s->tags_off >= s->hints_off + s->n_table);
    assert_true(s->soft_off % 8 == 0 && s->soft_off >= s->tags_off + s->n_table * sizeof(tag_t));
    assert_true(s->soft_off + s->n_table * sizeof(struct soft_unit) <= s->n_meta * UNIT_BYTES);
    assert_true(s->soft_off + s->n_table * sizeof(struct soft_unit) > (s->n_meta - 1) * UNIT_BYTES);
    assert_true(s->n_meta < s->n_units && s->n_table > s->n_meta);
}

static void tables_fit_before_the_units_for_every_size(void **state)
{
    (void)state;
    for (uint32_t n = 8; n <= SLOT_UNITS + 1000; n += n < 5000 ? 1 : 97) {
        struct segment_shape s = segment_shape(n);
        assert_shape_valid(&s);
        assert_int_equal(s.n_table, n <= SLOT_UNITS ? n : s.n_meta + 1);
    }
    struct segment_shape largest = segment_shape(HEAP_UNITS);
    assert_shape_valid(&largest);
    assert_int_equal(largest.size_bytes, HEAP_BYTES);
}

static void units_for_a_run_are_enough_and_one_less_is_not(void **state)
{
    (void)state;
    for (uint32_t n = 1; n <= SLOT_UNITS + 1000; n += n < 5000 ? 1 : 89) {
        uint32_t units = segment_units_for(n);
        assert_true(units - segment_shape(units).n_meta >= n);
        if (units > 8 && units != SLOT_UNITS + 1)
            assert_true(units - 1 - segment_shape(units - 1).n_meta < n);
    }
}

static void the_control_segment_is_written_by_its_maker_alone(void **state)
{
    (void)state;
    CLEANUP_FD int fd = -1;
    struct control *mine;
    const struct control *theirs;
    const char *why = NULL;

    assert_int_equal(control_create("test", &fd, &mine), 0);
    assert_int_equal(control_map(fd, &theirs, &why), 0);
    mine->header.granted_bytes = 42;
    assert_int_equal(theirs->header.granted_bytes, 42);
    munmap((void *)(uintptr_t)theirs, sizeof(*theirs));
    /* What others get. */
    CLEANUP_FD int theirs_fd = -1;
    assert_int_equal(segment_reopen_readonly(fd, &theirs_fd), 0);
    assert_int_equal(control_map(theirs_fd, &theirs, &why), 0);
    assert_true(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, theirs_fd, 0) == MAP_FAILED);
    assert_int_equal(pwrite(theirs_fd, "x", 1, 0), -1);
    assert_int_equal(mprotect((void *)(uintptr_t)theirs, 4096, PROT_READ | PROT_WRITE), -1);
    munmap((void *)(uintptr_t)theirs, sizeof(*theirs));
    /* The next daemon. */
    struct control *next;
    assert_int_equal(control_open(fd, &next), 0);
    next->header.granted_bytes = 43;
    assert_int_equal(mine->header.granted_bytes, 43);
    munmap(next, sizeof(*next));
    munmap(mine, sizeof(*mine));
}

static void a_control_segment_of_another_layout_is_refused(void **state)
{
    (void)state;
    CLEANUP_FD int fd = -1;
    struct control *mine;
    const struct control *theirs;
    const char *why = NULL;

    assert_int_equal(control_create("test", &fd, &mine), 0);
    mine->header.version++;
    assert_int_equal(control_map(fd, &theirs, &why), -EPROTO);
    mine->header.version--;
    mine->header.magic++;
    assert_int_equal(control_map(fd, &theirs, &why), -EPROTO);
    munmap(mine, sizeof(*mine));
    CLEANUP_FD int segment = new_segment();
    assert_int_equal(control_map(segment, &theirs, &why), -EPROTO);
    assert_non_null(why);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_segment_cannot_be_resized_or_unsealed),
        cmocka_unit_test(holes_can_be_punched_into_a_sealed_segment),
        cmocka_unit_test(a_fresh_segment_is_believed_and_has_the_shape_it_was_made_with),
        cmocka_unit_test(a_fresh_segment_keeps_little_memory),
        cmocka_unit_test(meta_units_are_marked_and_all_others_free),
        cmocka_unit_test(another_magic_version_or_layout_is_refused),
        cmocka_unit_test(another_heap_or_slot_is_refused),
        cmocka_unit_test(a_header_that_lies_about_sizes_or_tables_is_refused),
        cmocka_unit_test(an_unsealed_or_half_sealed_memfd_is_refused),
        cmocka_unit_test(a_memfd_sealed_against_writing_is_refused),
        cmocka_unit_test(a_file_shorter_or_longer_than_its_header_says_is_refused),
        cmocka_unit_test(what_is_no_memfd_is_refused),
        cmocka_unit_test(a_read_only_description_cannot_be_mapped_for_writing),
        cmocka_unit_test(another_user_cannot_reopen_it_for_writing),
        cmocka_unit_test(tables_fit_before_the_units_for_every_size),
        cmocka_unit_test(units_for_a_run_are_enough_and_one_less_is_not),
        cmocka_unit_test(the_control_segment_is_written_by_its_maker_alone),
        cmocka_unit_test(a_control_segment_of_another_layout_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
