/* SPDX-License-Identifier: Apache-2.0 */
/*
 * soft_pin.pml - pins of soft blocks, all interleavings (client/soft.c, daemon/soft.c).
 *
 * MODEL. One unit, in which soft blocks live one after the other. Client 1 makes them, LIVES of
 * them, unpins or frees each, and pins it again; client 2 hears their names and pins, unpins and
 * frees them, PINS_N times. The daemon grants the unit, takes the block that lies there, collects
 * what was freed, and may be killed between mark and end of a take. DEATHS of the clients are
 * killed, each at any step; their stores still get out. Loads and stores of clients go through
 * store buffers (x86) of DEPTH stores; a compare-and-swap, and a store that is sequentially
 * consistent, drain them.
 *
 *   here       stands for
 *   birth      client/soft.c soft_commit()        pin    line_claim(), is_there()
 *   unpin      line_drop()                        drop   soft_free()
 *   take       daemon/soft.c mark(), soft_look(), take_marked(), give_back()
 *   collect    daemon/soft.c collect()            bury   daemon/sweep.c, daemon/reaper.c
 *
 * ASSERTED. 1. give_back: nobody who lives believes to have the block pinned. 2. pin: what is
 * pinned is the block that the name names. 3. At the end nothing that was freed, or whose maker is
 * dead, is still pinned by a line that nobody will take away.
 *
 * LEFT OUT. ARM64, several units, threads of one process (which have lines of their own), what a
 * block that becomes an orphan is called in the books.
 */
#ifndef DEPTH
#define DEPTH 2
#endif
#ifndef LIVES
#define LIVES 2
#endif
#ifndef PINS_N
#define PINS_N 2
#endif
#ifndef DEATHS
#define DEATHS 0
#endif

/* Shared memory, a word each. */
#define PIN(p) (p - 1)
#define ENTRY  2
#define GEN    3
#define TAG    4
#define NAME   5 /* the application's: the generation of the last block; 0: none */
#define WORDS  6

#define U_FREE   0
#define U_CUT    1
#define U_SOFT   2
#define U_TAKING 3

byte mem[WORDS];
byte buf_at[9], buf_value[9], buf_n[3]; /* client p: from 3 * p on */

bool killed[3], buried[3], ended[3];
byte n_deaths;
byte block;     /* ghost: the generation of the block that lies there; 0: none */
byte pinned[3]; /* ghost: the generation that p believes to have pinned; 0: none */

/* ---- x86 ---- */

inline store(p, at, value)
{
    atomic {
        buf_n[p] < DEPTH;
        buf_at[3 * p + buf_n[p]] = at;
        buf_value[3 * p + buf_n[p]] = value;
        buf_n[p]++;
    }
}

inline load(p, at, ret)
{
    d_step {
        ret = mem[at];
        if
        :: buf_n[p] > 0 && buf_at[3 * p] == at -> ret = buf_value[3 * p]
        :: else
        fi;
        if
        :: buf_n[p] > 1 && buf_at[3 * p + 1] == at -> ret = buf_value[3 * p + 1]
        :: else
        fi
    }
}

/* Sequentially consistent, as a compare-and-swap is. */
inline store_now(p, at, value)
{
    atomic { buf_n[p] == 0; mem[at] = value }
}

proctype Buffers()
{
    byte p;
end:
    do
    :: atomic {
           if
           :: buf_n[1] > 0 -> p = 1
           :: buf_n[2] > 0 -> p = 2
           fi;
           mem[buf_at[3 * p]] = buf_value[3 * p];
           buf_at[3 * p] = buf_at[3 * p + 1];
           buf_value[3 * p] = buf_value[3 * p + 1];
           buf_at[3 * p + 1] = 0;
           buf_value[3 * p + 1] = 0;
           buf_n[p]--
       }
    od
}

/* ---- clients ---- */

inline pin(p, g)
{
#ifdef PIN_BY_STORE
    store(p, PIN(p), 1);
#else
    store_now(p, PIN(p), 1);
#endif
    load(p, ENTRY, e);
    do
    :: e == U_TAKING ->
        atomic {
            buf_n[p] == 0;
            e = mem[ENTRY];
            if
            :: e == U_TAKING -> mem[ENTRY] = U_SOFT; e = U_SOFT
            :: else
            fi
        }
    :: else -> break
    od;
    load(p, TAG, t);
#ifdef NO_TAG
    t = 1;
#endif
    atomic {
        load(p, GEN, v);
#ifdef NO_GENERATION
        v = g;
#endif
        if
        :: e == U_SOFT && t != 0 && v == g ->
            assert(block == g);
            pinned[p] = g
        :: else
        fi
    }
    if
    :: pinned[p] == 0 -> store(p, PIN(p), 0)
    :: else
    fi
}

inline unpin(p)
{
    atomic { pinned[p] = 0; store(p, PIN(p), 0) }
}

inline drop(p)
{
    store_now(p, TAG, 0);
    unpin(p)
}

/* The unit is ours, entry U_CUT. */
inline birth(p)
{
    load(p, GEN, v);
    v++;
    store(p, GEN, v);
#ifdef PIN_LATE
    store(p, TAG, p);
    atomic { store(p, ENTRY, U_SOFT); block = v; pinned[p] = v }
    store_now(p, PIN(p), 1);
#else
    store_now(p, PIN(p), 1);
    store(p, TAG, p);
    atomic { store(p, ENTRY, U_SOFT); block = v; pinned[p] = v }
#endif
    store(p, NAME, v);
    name = v
}

proctype Maker()
{
    byte e, t, v, name, n;
    {
        do
        :: n == LIVES -> break
        :: n < LIVES && mem[ENTRY] == U_CUT && buf_n[1] == 0 ->
            birth(1);
            n++;
            if
            :: unpin(1)
            :: drop(1)
            fi;
            if
            :: pin(1, name);
                if
                :: pinned[1] != 0 ->
                    if
                    :: unpin(1)
                    :: drop(1)
                    fi
                :: else
                fi
            :: skip
            fi
        od
    } unless { killed[1] };
    ended[1] = true
}

proctype Reader()
{
    byte e, t, v, name, n;
    {
        do
        :: n == PINS_N -> break
        :: n < PINS_N ->
            n++;
            load(2, NAME, name);
            if
            :: name == 0
            :: else ->
                pin(2, name);
                if
                :: pinned[2] != 0 ->
                    if
                    :: unpin(2)
                    :: drop(2)
                    fi
                :: else
                fi
            fi
        od
    } unless { killed[2] };
    ended[2] = true
}

proctype Killer()
{
end:
    do
    :: n_deaths < DEATHS ->
        atomic {
            n_deaths++;
            if
            :: !killed[1] && !ended[1] -> killed[1] = true; pinned[1] = 0
            :: !killed[2] && !ended[2] -> killed[2] = true; pinned[2] = 0
            :: skip
            fi
        }
    od
}

/* ---- the daemon: its own loads and stores are in order ---- */

inline look()
{
    any = 0;
    d_step { any = any || (mem[PIN(1)] != 0 && !buried[1]) }
    d_step { any = any || (mem[PIN(2)] != 0 && !buried[2]) }
}

inline give_back(from)
{
    atomic {
        if
        :: mem[ENTRY] == from ->
            mem[ENTRY] = U_FREE;
            assert(pinned[1] == 0 && pinned[2] == 0);
            block = 0
        :: else
        fi
    }
}

inline take()
{
    atomic {
        mem[ENTRY] == U_SOFT || mem[ENTRY] == U_TAKING;
#ifdef NO_MARK
        from = U_SOFT
#else
        mem[ENTRY] = U_TAKING;
        from = U_TAKING
#endif
    }
    look();
    if
    :: any ->
        atomic {
            if
            :: mem[ENTRY] == U_TAKING -> mem[ENTRY] = U_SOFT
            :: else
            fi
        }
    :: !any -> give_back(from)
    :: skip /* killed here: the mark stays */
    fi
}

/* What was freed: the entry, and then the tag, have been seen. */
inline collect()
{
    atomic {
        (mem[ENTRY] == U_SOFT || mem[ENTRY] == U_TAKING) && mem[TAG] == 0;
        from = mem[ENTRY]
    }
#ifdef COLLECT_BLINDLY
    any = 0;
#else
    look();
#endif
    if
    :: !any -> give_back(from)
    :: else
    fi
}

proctype Daemon()
{
    byte from, any, granted;
end:
    do
    :: atomic { mem[ENTRY] == U_FREE && granted < LIVES && !killed[1] ->
           granted++;
           mem[ENTRY] = U_CUT }
    :: take()
    :: collect()
    :: atomic { killed[1] && !buried[1] && buf_n[1] == 0 -> buried[1] = true;
           if
           :: mem[ENTRY] == U_CUT -> mem[ENTRY] = U_FREE
           :: else
           fi;
           mem[TAG] = 0 }
    :: atomic { killed[2] && !buried[2] && buf_n[2] == 0 -> buried[2] = true }
    :: atomic { /* at rest: 3. */
           ended[1] && ended[2] && buf_n[1] == 0 && buf_n[2] == 0 &&
               (!killed[1] || buried[1]) && (!killed[2] || buried[2]) ->
           assert(mem[PIN(1)] == 0 || buried[1]);
           assert(mem[PIN(2)] == 0 || buried[2]);
           break }
    od
}

init
{
    atomic { run Buffers(); run Maker(); run Reader(); run Killer(); run Daemon() }
}
