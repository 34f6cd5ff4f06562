/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wall: three hostile clients of a tenant with a max of 64 MiB try to have more memory by all
 * means that a descriptor and a mapping give, while what its segments have is measured from
 * outside: the pages (st_blocks) of each segment's file that the daemon, its keeper, the hostile
 * ones or their children have open or mapped, those of dropped heaps and retired segments too. It
 * never exceeds 64 MiB; with another tenant's never the capacity.
 *
 * Beside segments a tenant makes the daemon hold a control page and books, of a size that is fixed
 * for each heap, and a life page of at most 64 KiB for each client: these stay what they are.
 */
#include "tests/misuse/hostile.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

#define N_HOSTILE    3u
#define MAX_BYTES    MIB(64)
#define CAPACITY     MIB(96)
#define BEYOND       MIB(8)
#define LIFE_MAX     KIB(64)
#define GRANTS_MAX   4096u
#define INODES_MAX   1024u
#define SOME_BYTES   KIB(256)
#define STEP_SECONDS 60u

static const char *const config = "capacity = \"96M\"\n"
                                  "tenant bad { max = \"64M\" users = {\"*\"} }\n"
                                  "tenant good { max = \"64M\" }\n";

/* ---- what is there, seen from outside ---- */

struct held {
    uint64_t bad, good, life_most;
    uint64_t others, others_size; /* control pages and books: what they have, and are long */
    unsigned n_inodes;
    ino_t inodes[INODES_MAX];
};

static bool is_new(struct held *held, ino_t inode)
{
    for (unsigned i = 0; i < held->n_inodes; i++)
        if (held->inodes[i] == inode)
            return false;
    assert_true(held->n_inodes < INODES_MAX);
    held->inodes[held->n_inodes++] = inode;
    return true;
}

static uint64_t good_heap_id;

/* The header says it, of the other tenant's; what the hostile ones have scribbled over, too, is
 * theirs. */
static bool is_good(const char *path, ino_t inode)
{
    static ino_t good[64];
    static unsigned n_good;
    struct seg_header header = {0};
    for (unsigned i = 0; i < n_good; i++)
        if (good[i] == inode)
            return true;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    (void)!pread(fd, &header, sizeof(header), 0);
    close_fd(&fd);
    if (header.heap_id != good_heap_id)
        return false;
    assert_true(n_good < ARRAY_LEN(good));
    good[n_good++] = inode;
    return true;
}

/* A file that a process has open, or mapped. */
static void take_file(struct held *held, const char *path)
{
    char name[256] = "";
    struct stat st;
    if (readlink(path, name, sizeof(name) - 1) < 0 || strncmp(name, "/memfd:", 7) != 0)
        return;
    if (stat(path, &st) < 0 || !is_new(held, st.st_ino))
        return;
    uint64_t bytes = (uint64_t)st.st_blocks * 512;
    if (strncmp(name + 7, "acre-segment", 12) == 0)
        *(is_good(path, st.st_ino) ? &held->good : &held->bad) += bytes;
    else if (strncmp(name + 7, "life", 4) == 0)
        held->life_most = MAX(held->life_most, bytes);
    else {
        held->others += bytes;
        held->others_size += (uint64_t)st.st_size;
    }
}

static void take_files(struct held *held, pid_t pid, const char *which)
{
    char path[512];
    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, which);
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        snprintf(path, sizeof(path), "/proc/%d/%s/%s", (int)pid, which, e->d_name);
        take_file(held, path);
    }
    if (dir)
        closedir(dir);
}

/* And its children. */
static void take_process(struct held *held, pid_t pid)
{
    char path[64];
    int child;
    take_files(held, pid, "fd");
    take_files(held, pid, "map_files");
    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
    FILE *f = fopen(path, "re");
    while (f && fscanf(f, "%d", &child) == 1)
        take_process(held, child);
    if (f)
        fclose(f);
}

/* ---- those who try ---- */

static struct wall {
    struct hostile_orders orders;
    uint32_t step, n_done; /* wanted; of all of them */
} * wall;

struct intruder {
    struct hostile h;
    unsigned n_grants;
    struct msg_run grants[GRANTS_MAX];
};

/* All that is to be had. */
static void grow(struct intruder *me)
{
    for (uint32_t n = 256; n > 0 && me->n_grants < GRANTS_MAX;) {
        struct msg_request req = {.op = MSG_GROW, .grow = {.n_units = n, .exact = true}};
        struct msg_reply reply;
        if (hostile_call(&me->h, &req, &reply, NULL))
            me->grants[me->n_grants++] = reply.grow.run;
        else
            n /= 2;
    }
    hostile_map(&me->h);
}

static void populate(const struct hostile *h)
{
    for (unsigned i = 0; i < HOSTILE_SLOTS; i++)
        if (h->segs[i].base)
            (void)madvise(h->segs[i].base, h->segs[i].bytes, MADV_POPULATE_WRITE);
}

static void fill(struct intruder *me)
{
    grow(me);
    populate(&me->h);
}

/* One means, on each of the segments. */
#define ON_EACH_SEGMENT(fn)                                                                        \
    static void fn##_all(struct intruder *me)                                                      \
    {                                                                                              \
        for (unsigned i = 0; i < HOSTILE_SLOTS; i++)                                               \
            if (me->h.segs[i].base)                                                                \
                fn(me->h.segs[i].fd, me->h.segs[i].base, me->h.segs[i].bytes);                     \
        populate(&me->h);                                                                          \
    }

/* Beyond the end of a mapping's file a store is a SIGBUS; these are told so. */
static void touch_beyond(int fd, char *base, uint64_t bytes)
{
    char *longer =
        mmap(NULL, bytes + BEYOND, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    (void)base;
    if (longer == MAP_FAILED)
        return;
    int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    (void)madvise(longer, bytes + BEYOND, MADV_POPULATE_WRITE);
    (void)!read(zero, longer + bytes, BEYOND);
    munmap(longer, bytes + BEYOND);
    close(zero);
}
ON_EACH_SEGMENT(touch_beyond)

static void remap_longer(int fd, char *base, uint64_t bytes)
{
    (void)fd;
    char *copy = mremap(base, 0, bytes + BEYOND, MREMAP_MAYMOVE); /* a second mapping */
    if (copy == MAP_FAILED)
        return;
    (void)madvise(copy, bytes + BEYOND, MADV_POPULATE_WRITE);
    char *longer = mremap(copy, bytes + BEYOND, bytes + 2 * BEYOND, MREMAP_MAYMOVE);
    copy = longer == MAP_FAILED ? copy : longer;
    (void)madvise(copy, bytes + 2 * BEYOND, MADV_POPULATE_WRITE);
    munmap(copy, longer == MAP_FAILED ? bytes + BEYOND : bytes + 2 * BEYOND);
}
ON_EACH_SEGMENT(remap_longer)

static void truncate_up_and_down(int fd, char *base, uint64_t bytes)
{
    (void)base;
    (void)!ftruncate(fd, (off_t)(bytes + BEYOND));
    (void)!ftruncate(fd, 0);
    (void)!ftruncate(fd, (off_t)(2 * bytes));
}
ON_EACH_SEGMENT(truncate_up_and_down)

static void allocate(int fd, char *base, uint64_t bytes)
{
    static const int modes[] = {0,
                                FALLOC_FL_KEEP_SIZE,
                                FALLOC_FL_ZERO_RANGE,
                                FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                                FALLOC_FL_INSERT_RANGE,
                                FALLOC_FL_COLLAPSE_RANGE,
                                FALLOC_FL_UNSHARE_RANGE};
    (void)base;
    for (unsigned i = 0; i < ARRAY_LEN(modes); i++) {
        (void)fallocate(fd, modes[i], (off_t)bytes, (off_t)BEYOND);
        (void)fallocate(fd, modes[i], (off_t)(bytes - SOME_BYTES), (off_t)BEYOND);
        (void)fallocate(fd, modes[i], 0, (off_t)(bytes + BEYOND));
    }
}
ON_EACH_SEGMENT(allocate)

/* By /proc it is another description, of other rights perhaps. */
static void reopen(int fd, char *base, uint64_t bytes)
{
    static const int flags[] = {O_RDWR, O_RDWR | O_TRUNC, O_RDWR | O_APPEND, O_WRONLY};
    char path[64], some[4096] = {1};
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    (void)chmod(path, 0777);
    (void)fchmod(fd, 0777);
    for (unsigned i = 0; i < ARRAY_LEN(flags); i++) {
        int again = open(path, flags[i] | O_CLOEXEC);
        if (again < 0)
            continue;
        truncate_up_and_down(again, base, bytes);
        allocate(again, base, bytes);
        for (unsigned k = 0; k < 64; k++)
            (void)!write(again, some, sizeof(some)); /* O_APPEND: at the end */
        close(again);
    }
    (void)truncate(path, (off_t)(bytes + BEYOND));
}
ON_EACH_SEGMENT(reopen)

static void write_beyond(int fd, char *base, uint64_t bytes)
{
    static char some[SOME_BYTES];
    struct iovec iov = {some, sizeof(some)};
    (void)base;
    (void)!pwrite(fd, some, sizeof(some), (off_t)bytes);
    (void)!pwrite(fd, some, sizeof(some), (off_t)(bytes - SOME_BYTES / 2));
    (void)!pwrite(fd, some, sizeof(some), (off_t)(bytes + BEYOND));
    (void)!pwritev2(fd, &iov, 1, -1, RWF_APPEND);
}
ON_EACH_SEGMENT(write_beyond)

static void send_and_splice(int fd, char *base, uint64_t bytes)
{
    off_t from = 0, to = (off_t)bytes;
    int ends[2], source = memfd_create("source", MFD_CLOEXEC);
    struct iovec iov = {base, SOME_BYTES};
    (void)!ftruncate(source, (off_t)MIB(1));
    (void)lseek(fd, to, SEEK_SET);
    (void)!sendfile(fd, source, &from, MIB(1));
    (void)!copy_file_range(source, &(off_t){0}, fd, &to, MIB(1), 0);
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0) {
        to = (off_t)bytes;
        (void)!write(ends[1], base, 4096);
        (void)!splice(ends[0], NULL, fd, &to, 4096, SPLICE_F_NONBLOCK);
        (void)!vmsplice(ends[1], &iov, 1, SPLICE_F_NONBLOCK | SPLICE_F_GIFT);
        to = 0;
        (void)!splice(ends[0], NULL, fd, &to, SOME_BYTES, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
        close(ends[0]);
        close(ends[1]);
    }
    close(source);
}
ON_EACH_SEGMENT(send_and_splice)

static void seal(int fd, char *base, uint64_t bytes)
{
    for (int i = 0; i < 6; i++)
        (void)fcntl(fd, F_ADD_SEALS, 1 << i);
    truncate_up_and_down(fd, base, bytes);
    allocate(fd, base, bytes);
}
ON_EACH_SEGMENT(seal)

/* While the others do the same, or have filled it. */
static void punch_and_refill(int fd, char *base, uint64_t bytes)
{
    for (unsigned i = 0; i < 3; i++) {
        (void)fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)bytes);
        (void)madvise(base, bytes, MADV_POPULATE_WRITE);
        (void)madvise(base, bytes, MADV_REMOVE);
        (void)fallocate(fd, 0, 0, (off_t)bytes);
        (void)fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)bytes,
                        (off_t)BEYOND);
    }
}
ON_EACH_SEGMENT(punch_and_refill)

/* To a process that is no client, which maps and fills it and lives on. */
static void pass_on(struct intruder *me)
{
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        size_t n;
        uint8_t buf[WIRE_PACKET_MAX];
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(ends[1]);
        close(me->h.sock);
        munmap(me->h.page, sizeof(*me->h.page)); /* or it would keep the client alive */
        for (int fd; wire_recv(ends[0], buf, &n, &fd) == 0;) {
            off_t bytes = lseek(fd, 0, SEEK_END);
            char *base =
                mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
            if (base != MAP_FAILED)
                punch_and_refill(fd, base, (uint64_t)bytes);
        }
        pause();
        _exit(0);
    }
    close(ends[0]);
    for (unsigned i = 0; i < HOSTILE_SLOTS; i++)
        if (me->h.segs[i].base)
            (void)wire_send(ends[1], "x", 1, me->h.segs[i].fd);
    close(ends[1]);
}

/* What is not a segment: the control page; its own life page, before and after it is a client's. */
static void grow_pages(struct intruder *me)
{
    struct hostile other;
    struct msg_request req = {.op = MSG_LOOK};
    struct msg_reply reply;
    int control_fd = -1;
    hostile_init(&other, me->h.orders, 3);
    strcpy(req.look.tenant, "bad");
    if (hostile_greet(&other) && hostile_call(&other, &req, &reply, &control_fd) &&
        control_fd >= 0) {
        struct stat st;
        (void)fstat(control_fd, &st);
        char *base = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, control_fd, 0);
        reopen(control_fd, base, (uint64_t)st.st_size);
        write_beyond(control_fd, base, (uint64_t)st.st_size);
        send_and_splice(control_fd, base, (uint64_t)st.st_size);
        seal(control_fd, base, (uint64_t)st.st_size);
        touch_beyond(control_fd, base, (uint64_t)st.st_size);
        if (base != MAP_FAILED)
            (void)mprotect(base, (size_t)st.st_size, PROT_READ | PROT_WRITE);
    }
    close_fd(&control_fd);
    hostile_leave(&other, false);
    reopen(me->h.life_fd, (char *)me->h.page, sizeof(*me->h.page));
    write_beyond(me->h.life_fd, (char *)me->h.page, sizeof(*me->h.page));
    truncate_up_and_down(me->h.life_fd, (char *)me->h.page, sizeof(*me->h.page));
    allocate(me->h.life_fd, (char *)me->h.page, sizeof(*me->h.page));
}

/* All units back, and the word that nothing is mapped any more, which is a lie. */
static void let_go_and_keep(struct intruder *me)
{
    struct msg_reply reply;
    while (me->n_grants > 0) {
        struct msg_request req = {.op = MSG_RELEASE};
        while (me->n_grants > 0 && req.release.n_runs < MSG_RUNS_MAX)
            req.release.runs[req.release.n_runs++] = me->grants[--me->n_grants];
        (void)hostile_call(&me->h, &req, &reply, NULL);
    }
    populate(&me->h);
}

static void lie(struct intruder *me)
{
    struct msg_reply reply;
    for (unsigned i = 0; i < 100; i++) {
        for (uint32_t slot = 0; slot < HOSTILE_SLOTS; slot++) {
            struct msg_request req = {.op = MSG_RETIRE, .retire = {.slot = slot}};
            (void)hostile_call(&me->h, &req, &reply, NULL);
            req.retire.done = true;
            (void)hostile_call(&me->h, &req, &reply, NULL);
        }
        populate(&me->h);
        pause_us(2000);
    }
}

/* Is no client any more; has all that it had, but for its life page. */
static void leave_and_keep(struct intruder *me)
{
    close_fd(&me->h.sock);
    munmap(me->h.page, sizeof(*me->h.page));
    close_fd(&me->h.life_fd);
    me->h.page = NULL;
    populate(&me->h);
}

/* Beside what it has of the heap that was dropped. */
static void fill_another_heap(struct intruder *me)
{
    static struct intruder again; /* one for each process */
    hostile_init(&again.h, me->h.orders, 9);
    (void)hostile_attach(&again.h, "again");
    fill(&again);
    populate(&me->h);
    fill(&again);
    for (unsigned i = 0; i < HOSTILE_SLOTS; i++)
        if (me->h.segs[i].base)
            punch_and_refill(me->h.segs[i].fd, me->h.segs[i].base, me->h.segs[i].bytes);
}

static const struct means {
    const char *name;
    void (*fn)(struct intruder *me);
} all_means[] = {
    {"grants, filled", fill},
    {"units given back, pages kept", let_go_and_keep},
    {"segments retired, by its word", lie}, /* the other tenant wants room */
    {"grants again", fill},
    {"mappings beyond the end", touch_beyond_all},
    {"mremap", remap_longer_all},
    {"ftruncate", truncate_up_and_down_all},
    {"fallocate", allocate_all},
    {"reopened by /proc", reopen_all},
    {"pwrite beyond the end", write_beyond_all},
    {"sendfile, splice, vmsplice", send_and_splice_all},
    {"punched and refilled", punch_and_refill_all},
    {"seals", seal_all},
    {"descriptors passed on", pass_on},
    {"control page and life page", grow_pages},
    {"connections gone, segments kept", leave_and_keep},
    {"another heap", fill_another_heap}, /* the first one has been dropped */
};
enum { STEP_WANTS_ROOM = 2, STEP_OTHERS_LEAVE = 3, STEP_DROPPED = ARRAY_LEN(all_means) - 1 };

static bool intrude(void *arg)
{
    static struct intruder me;
    (void)arg;
    hostile_become_nobody(&wall->orders);
    signal(SIGPIPE, SIG_IGN);
    hostile_init(&me.h, &wall->orders, 7);
    CHECK(hostile_attach(&me.h, "intruder"));
    for (uint32_t i = 0; i < ARRAY_LEN(all_means); i++) {
        while (__atomic_load_n(&wall->step, __ATOMIC_SEQ_CST) <= i)
            pause_us(500);
        all_means[i].fn(&me);
        __atomic_fetch_add(&wall->n_done, 1, __ATOMIC_SEQ_CST);
    }
    for (;;)
        pause();
}

/* ---- the watch ---- */

static struct held look(const pid_t *pids)
{
    struct held held = {0};
    take_process(&held, the_daemon.pid);
    for (unsigned i = 0; i < N_HOSTILE; i++)
        take_process(&held, pids[i]);
    return held;
}

static void expect_wall(const struct held *held, const char *when)
{
    if (held->bad > MAX_BYTES || held->bad + held->good > CAPACITY)
        fail_msg("%s: %llu KiB of segments, %llu KiB of the other tenant's", when,
                 (unsigned long long)held->bad / 1024, (unsigned long long)held->good / 1024);
    if (held->life_most > LIFE_MAX)
        fail_msg("%s: a life page of %llu KiB", when, (unsigned long long)held->life_most / 1024);
}

/* Looks all the while. */
static struct held take_step(const pid_t *pids, uint32_t i)
{
    struct held held, most = {0};
    uint64_t until_ns = wire_now_ns() + STEP_SECONDS * 1000000000ull;
    __atomic_store_n(&wall->step, i + 1, __ATOMIC_SEQ_CST);
    bool is_done;
    do {
        is_done = __atomic_load_n(&wall->n_done, __ATOMIC_SEQ_CST) == N_HOSTILE * (i + 1);
        held = look(pids);
        expect_wall(&held, all_means[i].name);
        most = held.bad > most.bad ? held : most;
        assert_true(wire_now_ns() < until_ns);
    } while (!is_done);
    printf("%-32s at most %6llu KiB, other tenant %6llu, control and books %5llu\n",
           all_means[i].name, (unsigned long long)most.bad / 1024,
           (unsigned long long)held.good / 1024, (unsigned long long)held.others / 1024);
    return held;
}

static unsigned take_mebibytes(struct acre_heap *heap, void **ret, unsigned n_max)
{
    unsigned n = 0;
    while (n < n_max && (ret[n] = acre_alloc(heap, MIB(1))))
        memset(ret[n++], 1, MIB(1));
    return n;
}

static uint64_t heap_id_of(const char *tenant)
{
    struct wire_call call = {.sock = -1, .deadline_ns = wire_now_ns() + 5000000000ull};
    struct msg_request req = {.op = MSG_LOOK, .serial = 2};
    struct msg_reply reply;
    int fd = -1;
    strcpy(req.look.tenant, tenant);
    assert_int_equal(wire_hello(the_daemon.socket, call.deadline_ns, &call.sock, NULL), 0);
    assert_int_equal(wire_call(&call, &req, -1, &reply, &fd), 0);
    assert_int_equal(reply.error, 0);
    close(fd);
    close(call.sock);
    return reply.look.heap_id;
}

static void drop_bad(void)
{
    char command[256];
    int status = -1;
    snprintf(command, sizeof(command), "%s tenant drop bad --socket %s 2>/dev/null",
             getenv("ACRECTL"), the_daemon.socket);
    for (unsigned i = 0; i < 500 && status != 0; i++) {
        status = system(command);
        if (status != 0)
            pause_us(20000);
    }
    assert_int_equal(status, 0);
}

/* With the last of them their segments go, and the tenant has its memory again. */
static void expect_room(void)
{
    void *blocks[48];
    unsigned n = 0;
    struct acre_heap *heap = heap_open(&the_daemon, "bad");
    for (unsigned i = 0; i < 500 && n < 40; i++) {
        n += take_mebibytes(heap, blocks + n, 40 - n);
        pause_us(10000);
    }
    assert_int_equal(n, 40);
    while (n > 0)
        acre_free(heap, blocks[--n]);
    acre_close(heap);
}

static void no_means_give_a_tenant_more_than_its_max(void **state)
{
    (void)state;
    pid_t pids[N_HOSTILE];
    void *blocks[64];
    unsigned n = 0;
    wall = shared_page(sizeof(*wall));
    strcpy(wall->orders.tenant, "bad");
    wall->orders.as_nobody = true;
    daemon_up(&the_daemon, config);
    the_daemon.is_scribbled = true;
    assert_int_equal(chmod(the_daemon.dir, 0755), 0);
    struct acre_heap *good = heap_open(&the_daemon, "good");
    good_heap_id = heap_id_of("good");
    for (unsigned i = 0; i < N_HOSTILE; i++)
        pids[i] = child_start(intrude, NULL);
    uint64_t fixed = 0;
    for (uint32_t i = 0; i < ARRAY_LEN(all_means); i++) {
        if (i == STEP_WANTS_ROOM)
            n = take_mebibytes(good, blocks, 60);
        if (i == STEP_OTHERS_LEAVE) {
            while (n > 0)
                acre_free(good, blocks[--n]);
            (void)acre_trim(good);
        }
        if (i == STEP_DROPPED)
            drop_bad();
        struct held held = take_step(pids, i);
        if (i == 0) {
            assert_true(held.bad > MAX_BYTES / 2); /* or the others would prove nothing */
            fixed = held.others_size;
        }
        assert_true(held.others <= held.others_size);
        assert_true(i == STEP_DROPPED || held.others_size == fixed);
    }
    for (unsigned i = 0; i < N_HOSTILE; i++) {
        assert_int_equal(kill(pids[i], SIGKILL), 0);
        assert_int_equal(child_signal(pids[i]), SIGKILL);
    }
    expect_room();
    acre_close(good);
    daemon_down(&the_daemon);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_means_give_a_tenant_more_than_its_max),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
