/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An echo server and its client, a thread and a libuv loop each, that send each other protobuf-c
 * messages through a unix socket, each with its length in front. Loops, handles, requests, buffers
 * and messages lie in one heap. ctest-labels: threads valgrind
 */
#include "tests/system/harness.h"

#include <pthread.h>
#include <uv.h>

#include "adapters/protobufc.h"
#include "adapters/uv.h"
#include "tests/adapters/echo.pb-c.h"

#define WINDOW 16u /* messages on their way */

static unsigned n_messages = 10000;

/* One end of the connection. */
struct end {
    uv_loop_t loop;
    uv_pipe_t listener, pipe;
    uv_connect_t connect;
    struct acre_heap *heap;
    ProtobufCAllocator allocator;
    char path[128];
    void (*on_message)(struct end *end, Echo *echo);
    uint8_t *in;
    size_t n_in, in_bytes;
    unsigned n_sent, n_received, n_foreign, n_wrong; /* foreign: blocks outside of the heap */
};

struct sending {
    uv_write_t write;
    struct end *end;
    uint8_t bytes[];
};

/* ---- messages ---- */

static void look_at(struct end *end, const void *block)
{
    end->n_foreign += acre_offset(end->heap, block) == 0;
}

static void *take(struct end *end, size_t size)
{
    void *block = acre_calloc(end->heap, 1, size);

    if (!block)
        abort();
    look_at(end, block);
    return block;
}

/* All that it points to is allocated as unpacking does, so that it is freed as what is unpacked. */
static Echo *echo_new(struct end *end, uint64_t serial, unsigned depth)
{
    Echo *echo = take(end, sizeof(*echo));

    echo__init(echo);
    echo->serial = serial;
    echo->text = take(end, 32);
    snprintf(echo->text, 32, "message %llu", (unsigned long long)serial);
    echo->n_numbers = 1 + serial % 50;
    echo->numbers = take(end, echo->n_numbers * sizeof(*echo->numbers));
    for (size_t i = 0; i < echo->n_numbers; i++)
        echo->numbers[i] = (int64_t)(serial * i) * (i % 2 ? 1 : -1);
    echo->payload.len = 1 + serial * 37 % 3000;
    echo->payload.data = take(end, echo->payload.len);
    memset(echo->payload.data, (int)serial, echo->payload.len);
    echo->n_inner = depth;
    echo->inner = depth ? take(end, depth * sizeof(Echo *)) : NULL;
    for (unsigned i = 0; i < depth; i++)
        echo->inner[i] = echo_new(end, serial + i, depth - 1);
    return echo;
}

static void look_into(struct end *end, const Echo *echo)
{
    look_at(end, echo);
    look_at(end, echo->text);
    look_at(end, echo->numbers);
    look_at(end, echo->payload.data);
    for (size_t i = 0; i < echo->n_inner; i++)
        look_into(end, echo->inner[i]);
}

static bool is_same(struct end *end, const Echo *a, const Echo *b)
{
    size_t n = echo__get_packed_size(a);
    uint8_t *bytes = take(end, 2 * n);
    bool same = echo__get_packed_size(b) == n && echo__pack(a, bytes) == n &&
                echo__pack(b, bytes + n) == n && memcmp(bytes, bytes + n, n) == 0;

    acre_free(end->heap, bytes);
    return same;
}

/* ---- the connection ---- */

static void on_written(uv_write_t *write, int status)
{
    struct sending *sending = (struct sending *)write;

    sending->end->n_wrong += status != 0;
    acre_free(sending->end->heap, sending);
}

static void send_echo(struct end *end, const Echo *echo)
{
    uint32_t n = (uint32_t)echo__get_packed_size(echo);
    struct sending *sending = take(end, sizeof(*sending) + sizeof(n) + n);
    uv_buf_t buf = uv_buf_init((char *)sending->bytes, sizeof(n) + n);

    sending->end = end;
    memcpy(sending->bytes, &n, sizeof(n));
    echo__pack(echo, sending->bytes + sizeof(n));
    end->n_sent++;
    if (uv_write(&sending->write, (uv_stream_t *)&end->pipe, &buf, 1, on_written) != 0)
        abort();
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct end *end = handle->data;

    (void)suggested;
    if (end->in_bytes - end->n_in < 4096) {
        end->in_bytes += 4096 + end->in_bytes;
        end->in = acre_realloc(end->heap, end->in, end->in_bytes);
        look_at(end, end->in);
    }
    *buf = uv_buf_init((char *)end->in + end->n_in, (unsigned)(end->in_bytes - end->n_in));
}

/* The bytes that the first message takes; 0: it is not all there. */
static size_t take_message(struct end *end, const uint8_t *bytes, size_t n_bytes)
{
    uint32_t n;

    if (n_bytes < sizeof(n))
        return 0;
    memcpy(&n, bytes, sizeof(n));
    if (n_bytes - sizeof(n) < n)
        return 0;
    Echo *echo = echo__unpack(&end->allocator, n, bytes + sizeof(n));
    if (!echo)
        abort();
    look_into(end, echo);
    end->n_received++;
    end->on_message(end, echo);
    echo__free_unpacked(echo, &end->allocator);
    return sizeof(n) + n;
}

static void on_read(uv_stream_t *stream, ssize_t n_read, const uv_buf_t *buf)
{
    struct end *end = stream->data;
    size_t n, taken = 0;

    (void)buf;
    if (n_read < 0) {
        end->n_wrong += n_read != UV_EOF;
        uv_close((uv_handle_t *)stream, NULL);
        return;
    }
    end->n_in += (size_t)n_read;
    while ((n = take_message(end, end->in + taken, end->n_in - taken)) > 0)
        taken += n;
    end->n_in -= taken;
    memmove(end->in, end->in + taken, end->n_in);
}

static struct end *end_new(struct acre_heap *heap, const char *path,
                           void (*on_message)(struct end *, Echo *))
{
    struct end *end = acre_calloc(heap, 1, sizeof(*end));

    assert_non_null(end);
    assert_int_equal(uv_loop_init(&end->loop), 0);
    assert_int_equal(uv_pipe_init(&end->loop, &end->pipe, 0), 0);
    end->heap = heap;
    end->allocator = acre_protobufc_allocator(heap);
    end->on_message = on_message;
    end->pipe.data = end->listener.data = end;
    snprintf(end->path, sizeof(end->path), "%s", path);
    return end;
}

static void *end_run(void *arg)
{
    struct end *end = arg;

    uv_run(&end->loop, UV_RUN_DEFAULT);
    look_at(end, end->loop.watchers); /* libuv's own */
    end->n_wrong += uv_loop_close(&end->loop) != 0;
    acre_free(end->heap, end->in);
    return NULL;
}

static void end_free(struct end *end)
{
    acre_free(end->heap, end);
}

/* ---- the server ---- */

static void answer(struct end *end, Echo *echo)
{
    send_echo(end, echo);
}

/* It serves one. */
static void on_connection(uv_stream_t *listener, int status)
{
    struct end *end = listener->data;

    if (status != 0 || uv_accept(listener, (uv_stream_t *)&end->pipe) != 0 ||
        uv_read_start((uv_stream_t *)&end->pipe, on_alloc, on_read) != 0)
        abort();
    look_at(end, end->listener.pipe_fname);
    uv_close((uv_handle_t *)listener, NULL);
}

static struct end *server_new(struct acre_heap *heap, const char *path)
{
    struct end *end = end_new(heap, path, answer);

    assert_int_equal(uv_pipe_init(&end->loop, &end->listener, 0), 0);
    assert_int_equal(uv_pipe_bind(&end->listener, path), 0);
    assert_int_equal(uv_listen((uv_stream_t *)&end->listener, 1, on_connection), 0);
    return end;
}

/* ---- the client ---- */

static void ask(struct end *end)
{
    Echo *echo = echo_new(end, end->n_sent, end->n_sent % 3);

    send_echo(end, echo);
    echo__free_unpacked(echo, &end->allocator);
}

static void check_answer(struct end *end, Echo *echo)
{
    unsigned serial = end->n_received - 1;
    Echo *expected = echo_new(end, serial, serial % 3);

    end->n_wrong += !is_same(end, echo, expected);
    echo__free_unpacked(expected, &end->allocator);
    if (end->n_sent < n_messages)
        ask(end);
    else if (end->n_received == n_messages)
        uv_close((uv_handle_t *)&end->pipe, NULL);
}

static void on_connected(uv_connect_t *connect, int status)
{
    struct end *end = connect->handle->data;

    if (status != 0 || uv_read_start((uv_stream_t *)&end->pipe, on_alloc, on_read) != 0)
        abort();
    while (end->n_sent < WINDOW)
        ask(end);
}

static struct end *client_new(struct acre_heap *heap, const char *path)
{
    struct end *end = end_new(heap, path, check_answer);

    uv_pipe_connect(&end->connect, &end->pipe, path, on_connected);
    return end;
}

/* ---- tests ---- */

static void ten_thousand_messages_come_back_and_leave_nothing(void **state)
{
    struct acre_heap *heap = heap_open(&the_daemon, "default");
    char path[128];
    pthread_t thread;

    (void)state;
    snprintf(path, sizeof(path), "%s/echo.sock", the_daemon.dir);
    assert_int_equal(acre_uv_use(heap), 0);
    struct end *server = server_new(heap, path), *client = client_new(heap, path);
    assert_int_equal(pthread_create(&thread, NULL, end_run, server), 0);
    end_run(client);
    pthread_join(thread, NULL);

    assert_int_equal(client->n_received, n_messages);
    assert_int_equal(server->n_received, n_messages);
    assert_int_equal(client->n_wrong + server->n_wrong, 0);
    assert_int_equal(client->n_foreign + server->n_foreign, 0);
    end_free(server);
    end_free(client);
    assert_int_equal(tenant_stats(&the_daemon, "default").live_bytes, 0);
    assert_int_equal(acre_uv_use(NULL), 0);
    acre_close(heap);
}

/* A packed message whose numbers alone fill 8 MB once unpacked; the caller frees it. */
static uint8_t *packed_large(size_t *ret_n)
{
    struct acre_heap *heap = heap_open(&the_daemon, "default");
    struct end from = {.heap = heap};
    Echo *echo = echo_new(&from, 1, 3);

    acre_free(heap, echo->numbers);
    echo->n_numbers = 1000000;
    echo->numbers = take(&from, echo->n_numbers * sizeof(*echo->numbers));
    *ret_n = echo__get_packed_size(echo);
    uint8_t *bytes = malloc(*ret_n);
    echo__pack(echo, bytes);
    acre_close(heap);
    return bytes;
}

static void what_does_not_fit_is_refused_and_leaves_nothing(void **state)
{
    size_t n;
    uint8_t *bytes = packed_large(&n);
    struct acre_heap *heap = heap_open(&the_daemon, "small");
    ProtobufCAllocator allocator = acre_protobufc_allocator(heap);

    (void)state;
    for (unsigned i = 0; i < 3; i++)
        assert_null(echo__unpack(&allocator, n, bytes));
    assert_int_equal(tenant_stats(&the_daemon, "small").live_bytes, 0);
    acre_close(heap);
    free(bytes);
}

static void what_libuv_wants_zeroed_is_zeroed(void **state)
{
    struct acre_heap *heap = heap_open(&the_daemon, "default");
    void *dirty[100];
    uv_loop_t loop;

    (void)state;
    for (size_t size = 16; size < 1024; size += 16) {
        for (unsigned i = 0; i < 100; i++)
            memset(dirty[i] = acre_alloc(heap, size), 0xff, size);
        for (unsigned i = 0; i < 100; i++)
            acre_free(heap, dirty[i]);
    }
    assert_int_equal(acre_uv_use(heap), 0);
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(uv_metrics_idle_time(&loop), 0);
    assert_int_equal(uv_loop_close(&loop), 0);
    assert_int_equal(acre_uv_use(NULL), 0);
    acre_close(heap);
}

static void a_loop_in_a_full_heap_is_enomem(void **state)
{
    struct acre_heap *heap = heap_open(&the_daemon, "small");
    uv_loop_t loop;
    void *filled;

    (void)state;
    for (size_t size = 1 << 20; size >= 16; size /= 2)
        while ((filled = acre_alloc(heap, size)))
            ;
    assert_int_equal(acre_uv_use(heap), 0);
    assert_int_equal(uv_loop_init(&loop), UV_ENOMEM);
    assert_int_equal(acre_uv_use(NULL), 0);
    acre_close(heap);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ten_thousand_messages_come_back_and_leave_nothing),
        cmocka_unit_test(what_does_not_fit_is_refused_and_leaves_nothing),
        cmocka_unit_test(what_libuv_wants_zeroed_is_zeroed),
        cmocka_unit_test(a_loop_in_a_full_heap_is_enomem),
    };
    if (getenv("ACRE_ON_VALGRIND"))
        n_messages = 1000;
    return run_beside_daemon(tests, "capacity = \"512M\"\ntenant \"default\" { max = \"256M\" }\n"
                                    "tenant \"small\" { max = \"4M\" }\n");
}
