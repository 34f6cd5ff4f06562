/* SPDX-License-Identifier: Apache-2.0 */
/*
 * owner_tag.pml - the owner tag and its hint, all interleavings (DESIGN.md sections 5 and 13).
 *
 * MODEL. One slab of two blocks. Client 1 holds it, allocates, frees, publishes, gives. Client 2
 * is sent blocks: it frees, adopts, keeps, and with RELAY passes them on to 3. Client 3 is sent
 * blocks, and is the next holder if 1 dies. A daemon sweeps and buries. DEATHS of the clients are
 * killed, each at any step; what is in a store buffer then still gets out, as on a machine. Loads
 * and stores of clients go through store buffers (x86); DEPTH stores, flushed at any time. The
 * daemon's own are in order. owner[] is what the participants believe, and is only asserted about.
 *
 *   here        stands for (each line a load or a store there)
 *   tag_zero    client/alloc.c acre_free(): the store of TAG_FREE
 *   hint_store  client/alloc.c free_hint()            free_own  bin_push(), or the stack is full
 *   alloc       client/alloc.c tag_commit()           refill    client/bin.c bin_probe(), both ways
 *   scan        client/slab.c slab_clear_hint(), slab_scan()
 *   release     client/bin.c bin_forget(), client/slab.c slab_release(), pool_give(), slab_cut()
 *   publish, give, adopt   client/owner.c acre_publish(), acre_give(), acre_adopt()
 *   sweep       daemon/sweep.c sweep_work(): seq odd, barrier(), entry, copy; change(); hint; seq
 *   Daemon      daemon/reaper.c die() (gen = 0), bury: keep_for_others(), orphan_adopt()
 *   Third       daemon/orphan.c orphan_grant(), client/slab.c slab_adopt(), slab_hold()
 *
 * ASSERTED. 1. alloc: nobody believes to own the block, its tag is 0. 2. check_block, when all rest:
 * each tag is what is believed; a block of nobody's has tag 0, in a slab that somebody's scan finds
 * (with TRUST_HINTS: by its hint alone). 3. change: only a dead client's tag is swept, and
 * never in user data. 4. check_block: no tag of the dead.
 *
 * LEFT OUT. ARM64, large blocks, four tags at once, links, publish_all, reuse of ids, restarts, more
 * threads than one, several slabs.
 */
#ifndef DEPTH
#define DEPTH 2 /* stores in a store buffer */
#endif
#ifndef ALLOCS
#define ALLOCS 2 /* that the holder asks for */
#endif
#ifndef DEATHS
#define DEATHS 0
#endif

#define CLIENTS 3
#define HEAP    9 /* the tag 65,535 */
#define NOBODY  0
#define ORPHAN  8

/* Shared memory, a word each. */
#define TAG   0 /* and 1 */
#define HINT  2
#define ENTRY 3 /* of the unit table; its holder is implied by books */
#define SEQ   4 /* sweep_seq % 2 */
#define MAIL  4 /* + id: 6 and 7; the application's: block + 1 */
#define GEN   6 /* + id: 8 and 9 */
#define WORDS 10

#define U_FREE      0
#define U_SLAB      1
#define U_PARKED    2
#define U_RELEASING 3

byte mem[WORDS];
byte buf_at[12], buf_value[12], buf_n[4]; /* client p: from 3 * p on */

bool killed[4], buried[4], idle[4], reaping;
byte books;     /* who owns the units */
byte owner[2];  /* ghost: who believes to own the block */
byte known[4];  /* blocks in stack or mask, one bit each */
byte n_deaths, releases;

/* ---- x86: stores wait in a FIFO, loads see their own first, fences drain ---- */

inline store(p, at, value)
{
    atomic {
        buf_n[p] < DEPTH;
        buf_at[3 * p + buf_n[p]] = at;
        buf_value[3 * p + buf_n[p]] = value;
        buf_n[p]++;
    }
}

inline look(p, at, ret) /* inside of an atomic */
{
    ret = mem[at];
    if
    :: buf_n[p] > 0 && buf_at[3 * p] == at -> ret = buf_value[3 * p]
    :: else
    fi;
    if
    :: buf_n[p] > 1 && buf_at[3 * p + 1] == at -> ret = buf_value[3 * p + 1]
    :: else
    fi;
    if
    :: buf_n[p] > 2 && buf_at[3 * p + 2] == at -> ret = buf_value[3 * p + 2]
    :: else
    fi
}

inline load(p, at, ret)
{
    d_step { look(p, at, ret) }
}

inline fence(p)
{
    buf_n[p] == 0
}

inline flush(p)
{
    d_step {
        buf_n[p] > 0;
        mem[buf_at[3 * p]] = buf_value[3 * p];
        buf_at[3 * p] = buf_at[3 * p + 1];
        buf_value[3 * p] = buf_value[3 * p + 1];
        buf_at[3 * p + 1] = buf_at[3 * p + 2];
        buf_value[3 * p + 1] = buf_value[3 * p + 2];
        buf_at[3 * p + 2] = 0;
        buf_value[3 * p + 2] = 0;
        buf_n[p]--;
    }
}

proctype Buffers()
{
end:
    do
    :: flush(1)
    :: flush(2)
    :: flush(3)
    od
}

/* ---- free: client/alloc.c ---- */

inline hint_store(p)
{
#ifdef HINT_IF_CLEAR
    load(p, HINT, v);
    if
    :: v == 0 -> store(p, HINT, 1)
    :: else
    fi
#else
    store(p, HINT, 1)
#endif
}

inline tag_zero(p, b)
{
    atomic {
        store(p, TAG + b, 0);
        assert(owner[b] == p || owner[b] == HEAP);
        owner[b] = NOBODY
    }
}

inline free_foreign(p, b)
{
#ifdef HINT_FIRST
    hint_store(p);
    tag_zero(p, b);
#else
    tag_zero(p, b);
    hint_store(p);
#endif
}

/* The holder's own: onto the stack, or, when that is full, as everybody else. */
inline free_own(p, b)
{
    if
    :: atomic { tag_zero(p, b); known[p] = known[p] | (1 << b) }
    :: free_foreign(p, b)
    fi
}

/* ---- owner.c ---- */

inline publish(p, b)
{
    atomic {
        store(p, TAG + b, HEAP);
        assert(owner[b] == p);
        owner[b] = HEAP;
    }
}

/* ok: it is the receiver's, and ends with it. Nobody looks again: a tag of one that has died meanwhile
 * is freed by the next sweep. */
inline give(p, b, to, ok)
{
    atomic { ok = 0; look(p, GEN + to, v) }
    if
    :: v == 0
    :: else ->
        atomic {
            store(p, TAG + b, to);
            assert(owner[b] == p);
            owner[b] = to;
            ok = 1
        }
    fi
}

inline adopt(p, b)
{
    atomic {
        fence(p);
        assert(mem[TAG + b] == HEAP && owner[b] == HEAP);
        mem[TAG + b] = p;
        owner[b] = p
    }
}

/* ---- the holder: bin.c, slab.c ---- */

inline scan(p)
{
    store(p, HINT, 0);
#ifndef NO_FENCE
    fence(p);
#endif
    d_step {
        look(p, TAG, v);
        if
        :: v == 0 -> known[p] = known[p] | 1
        :: else
        fi
    }
    d_step {
        look(p, TAG + 1, v);
        if
        :: v == 0 -> known[p] = known[p] | 2
        :: else
        fi;
        v = 0
    }
}

inline refill(p)
{
    load(p, HINT, v);
    if
    :: v != 0 -> scan(p)
    :: else
    fi;
#ifndef TRUST_HINTS
    if
    :: known[p] == 0 -> scan(p)
    :: else
    fi
#endif
}

/* b = 2: there is none. */
inline alloc(p, b)
{
    if
    :: known[p] == 0 -> refill(p)
    :: else
    fi;
    atomic {
        if
        :: known[p] == 0 -> b = 2
        :: else ->
            buf_n[p] < DEPTH;
            b = (known[p] & 1 -> 0 : 1);
            known[p] = known[p] & ~(1 << b);
            look(p, TAG + b, v);
            assert(v == 0);
            assert(owner[b] == NOBODY); /* no two owners */
            store(p, TAG + b, p);
            owner[b] = p;
            v = 0
        fi
    }
}

#ifdef RELAY
#define RECEIVER 3
#else
#define RECEIVER 2
#endif
#define DATA RECEIVER

/* An empty slab goes, becomes somebody's data, which looks like tags, and comes back. */
inline release(p)
{
    atomic { store(p, HINT, 1); known[p] = 0 } /* bin_forget() */
    load(p, TAG, v);
    if
    :: v == 0 -> load(p, TAG + 1, v)
    :: else
    fi;
    if
    :: v == 0 ->
        store(p, ENTRY, U_RELEASING);
        fence(p);
#ifndef RELEASE_BLINDLY
        load(p, SEQ, v);
#endif
        if
        :: v == 1 -> store(p, ENTRY, U_SLAB); fence(p)
        :: else ->
            store(p, ENTRY, U_FREE);
            store(p, TAG, DATA); /* user data; worse words than these there are none */
            store(p, TAG + 1, DATA);
            store(p, TAG, 0);
            store(p, TAG + 1, 0);
            store(p, ENTRY, U_SLAB);
            scan(p)
        fi
    :: else
    fi
}

/* ---- clients: what an application may do with a block ---- */

inline send(p, to, b)
{
    store(p, MAIL + to, b + 1)
}

inline free_any(p, b)
{
    if
    :: books == p -> free_own(p, b)
    :: books != p -> free_foreign(p, b)
    fi
}

inline pass_on(p, b, to)
{
    load(p, MAIL + to, v);
    if
    :: v != 0 /* full: kept */
    :: v == 0 -> publish(p, b); send(p, to, b)
#ifndef NO_GIVE
    :: v == 0 ->
        give(p, b, to, ok);
        if
        :: ok -> send(p, to, b)
        :: else
        fi
#endif
    fi
}

proctype Holder()
{
    byte n = ALLOCS, v, b, ok;
    {
        do
        :: n > 0 ->
            n--;
            alloc(1, b);
            if
            :: b < 2 ->
                if
                :: free_own(1, b)
                :: pass_on(1, b, 2)
                :: skip /* kept */
                fi
            :: else
            fi
#ifdef RELEASES
        :: releases < RELEASES -> releases++; release(1)
#endif
        :: n == 0 -> break
        od;
        atomic { v = 0; b = 0; ok = 0; idle[1] = true }
    } unless { killed[1] }
}

/* Takes what is sent to it: owned already, or the heap's. */
inline receive(p, b)
{
    atomic {
        mem[MAIL + p] != 0 && buf_n[p] == 0 ->
        b = mem[MAIL + p] - 1;
        idle[p] = false;
        store(p, MAIL + p, 0)
    }
    load(p, TAG + b, v);
    if
    :: v == HEAP -> adopt(p, b)
    :: v == HEAP /* freed as it is, or kept for others */
    :: else -> assert(v == p)
    fi
}

proctype Second()
{
    byte v, b, ok;
    {
end:
        do
        :: receive(2, b);
            if
            :: free_foreign(2, b)
            :: skip
#ifdef RELAY
            :: owner[b] == 2 -> pass_on(2, b, 3)
#endif
            fi;
            atomic { v = 0; b = 0; ok = 0; idle[2] = true }
        od
    } unless { killed[2] }
}

/* Receives what the second passes on; and is the next who asks for such a slab (daemon/orphan.c). */
proctype Third()
{
    byte v, b;
    {
end:
        do
        :: receive(3, b);
            if
            :: free_any(3, b)
            :: skip
            fi;
            atomic { v = 0; b = 0; idle[3] = true }
        :: atomic {
                books == ORPHAN && buf_n[3] == 0 && (mem[TAG] == 0 || mem[TAG + 1] == 0) ->
                books = 3; /* U_PARKED still: slab_adopt() */
                idle[3] = false
            }
            store(3, ENTRY, U_SLAB); /* slab_hold() */
            scan(3);
            alloc(3, b); /* and keeps it */
            atomic { v = 0; b = 0; idle[3] = true }
        od
    } unless { killed[3] }
}

/* ---- the daemon: reaper.c, sweep.c ---- */

inline change(b, copy)
{
    if
    :: copy > 0 && copy <= CLIENTS && (plan & (1 << copy)) ->
        d_step {
            if
#ifdef SWEEP_BY_STORE
            :: true ->
#else
            :: mem[TAG + b] == copy ->
#endif
                assert(mem[ENTRY] != U_FREE); /* no user data is changed */
                assert(owner[b] == copy);     /* nobody living loses anything */
                mem[TAG + b] = 0;
                owner[b] = NOBODY;
                freed = 1
#ifndef SWEEP_BY_STORE
            :: else
#endif
            fi
        }
    :: else
    fi;
    copy = 0
}

inline sweep()
{
    mem[SEQ] = 1;
#ifndef NO_MEMBARRIER
    fence(1);
    fence(2);
    fence(3);
#endif
    entry = mem[ENTRY];
    if
    :: entry == U_SLAB || entry == U_PARKED ->
        copy0 = mem[TAG];
        copy1 = mem[TAG + 1];
        change(0, copy0);
        change(1, copy1);
        if
        :: freed -> mem[HINT] = 1
        :: else
        fi
    :: else
    fi;
    atomic { freed = 0; entry = 0; mem[SEQ] = 0 }
}

#define IN_USE (mem[ENTRY] != U_FREE && (mem[TAG] != 0 || mem[TAG + 1] != 0))

/* keep_for_others(): a slab with a living tag is parked, all else is free. */
inline bury(p) /* inside of an atomic */
{
    if
    :: plan & (1 << p) ->
        if
        :: books != p
        :: books == p && IN_USE -> mem[ENTRY] = U_PARKED; books = ORPHAN
        :: books == p && !(IN_USE) -> mem[ENTRY] = U_FREE; books = NOBODY
        fi;
        buried[p] = true
    :: else
    fi
}

inline plan_for(p)
{
    if
    :: killed[p] && buf_n[p] == 0 -> plan = plan | (1 << p) /* ids at rest, too */
    :: else
    fi
}

/* The tag of one that was swept before: the next death, of whomever, brings the next sweep. */
#define GONE(t) (t != 0 && t <= CLIENTS && buried[t])
#define STALE                                                                                      \
    ((mem[ENTRY] == U_SLAB || mem[ENTRY] == U_PARKED) && (GONE(mem[TAG]) || GONE(mem[TAG + 1])))

proctype Daemon()
{
    byte plan, entry, copy0, copy1, freed;
end:
    do
    :: atomic {
            (killed[1] && !buried[1] && buf_n[1] == 0) ||
            (killed[2] && !buried[2] && buf_n[2] == 0) ||
            (killed[3] && !buried[3] && buf_n[3] == 0) || STALE ->
            plan_for(1);
            plan_for(2);
            plan_for(3);
            reaping = true;
            /* die() */
            if
            :: plan & 4 -> mem[GEN + 2] = 0
            :: else
            fi;
            if
            :: plan & 8 -> mem[GEN + 3] = 0
            :: else
            fi
        }
        sweep();
        atomic {
            bury(1);
            bury(2);
            bury(3);
            plan = 0;
            reaping = false
        }
    :: atomic {
            books == ORPHAN && mem[TAG] == 0 && mem[TAG + 1] == 0 -> /* orphans_collect() */
            mem[ENTRY] = U_FREE;
            books = NOBODY
        }
    od
}

/* ---- kills at any step ---- */

inline kill(p)
{
    atomic {
        n_deaths < DEATHS && !killed[p] ->
        killed[p] = true;
        n_deaths++
    }
}

proctype Kills()
{
end:
    do
    :: kill(1)
    :: kill(2)
    :: kill(3)
    od
}

/* ---- the end: all have finished or are buried, and all buffers are empty ---- */

#define RESTS(p) (buf_n[p] == 0 && (killed[p] -> buried[p] : idle[p]))
#define READ(p)  (killed[p] || mem[MAIL + p] == 0)
#define QUIET    (RESTS(1) && RESTS(2) && RESTS(3) && READ(2) && READ(3) && !reaping && \
                  !STALE)

inline check_block(b)
{
    if
    :: mem[ENTRY] == U_FREE
    :: else ->
        assert(mem[TAG + b] == owner[b]);
        assert(owner[b] == NOBODY || owner[b] == HEAP || !killed[owner[b]]);
        if
        :: owner[b] == NOBODY && books != ORPHAN ->
            assert(books == 1 || books == 3);
#ifdef TRUST_HINTS
            assert(mem[HINT] || (known[books] & (1 << b)))
#endif
        :: else
        fi
    fi
}

init {
    atomic {
        books = 1;
        mem[ENTRY] = U_SLAB;
        mem[GEN + 2] = 1;
        mem[GEN + 3] = 1;
        known[1] = 3; /* as after the first scan */
        idle[2] = true;
        idle[3] = true;
        run Buffers();
        run Holder();
        run Second();
        run Third();
        run Daemon();
        run Kills()
    }
    atomic {
        QUIET ->
        check_block(0);
        check_block(1)
    }
}
