/* The shared semaphore table: permits over all databases in shared memory (qjsupervisor/table/).

   Two workers, the master, one channel of capacity CAP; each store to the table is a step of its own, and a worker may
   die between any two of them, with or without the lock, also while it repairs what another one left. A worker that
   fails inside the lock gives it back and leaves the dirty mark. Stopped holders of the lock are killed by the master,
   so here they are deaths.

   Properties
     1 never over   rows enqueued or started, and permits held, are never more than CAP
     2 never lost   when nothing moves any more, each database holds as many permits as it has running jobs
     3 never idle   when nothing moves any more, no job waits while the channel has room
     4 fair         who waits sees at most one grant to the other one before its own
     5 never stuck  when nothing moves any more, the lock is free, the table clean and all workers live

       spin -a table.pml && gcc -O2 -DSAFETY -DHC4 -o pan pan.c && ./pan -m200000

   The properties need each RULE: with -DBREAK_<RULE> the search finds a counter-example. scripts/models checks both. */

#ifndef CAP
#define CAP 1
#endif
#ifndef JOBS
#define JOBS 2          /* of each database */
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
#define FREE 3
#define MASTER 2

/* the table's words */
byte held[2], total;            /* truth, and the sum that follows from it */
bool demand[2], waiting[2];       /* published demand; waiting follows: demand, and no grant that was not taken yet */
bool grant[2];                  /* a permit granted and not yet taken; it is in held already */
byte cursor;                    /* whose turn it is */
bool dirty;
byte repairs;
/* its lock, and the eventfds */
byte owner = FREE;
bool owner_died;                  /* the owner died */
bool event[2];
/* databases and Odoo */
byte pending[2] = JOBS, rows[2], ended[2];
bool frozen;                    /* Odoo answers nothing any more */
/* processes */
bool gone[2];                   /* died, and has no successor for long: its permits stay until the give-up time */
bool alive[2] = true, killed[2], fails[2], buried[2] = true;
byte mine[2], taken[2];         /* what a worker knows: permits it holds, those of them not used for a claim yet */
bool changed[2], published[2];
byte seen[2];                   /* repairs, as of the last exchange */
byte deaths;
byte passed[2];                 /* grants to the other one since it waits */

#define WANT(s) (pending[s] > taken[s])
#define check() assert(rows[0] + rows[1] <= CAP); assert(held[0] + held[1] <= CAP)
#define WAITS(s) (owner == s -> WANT(s) : waiting[s])
#define start_turn(s) passed[s] = 0; if :: WAITS(1 - (s)) -> passed[1 - (s)]++; assert(deaths > 0 || passed[1 - (s)] <= 1) :: else fi

#ifdef BREAK_ROBUST
#define LOCKABLE (owner == FREE)
#else
#define LOCKABLE (owner == FREE || owner_died)
#endif
#ifdef BREAK_MARK
#define UNCLEAN false
#else
#define UNCLEAN dirty                               /* set before the first store, cleared after the last */
#endif

/* Takes the lock, and puts right what a dead or failed holder left. */
inline enter(me) {
	d_step { LOCKABLE -> owner = me; owner_died = false };
	if
	:: UNCLEAN -> repair()
	:: else -> dirty = true
	fi }
inline leave() { dirty = false; d_step { owner = FREE } }
inline repair() {
	d_step { total = 0; waiting[0] = false; waiting[1] = false };
	total = total + held[0];
	waiting[0] = demand[0] && !grant[0];
	total = total + held[1];
	waiting[1] = demand[1] && !grant[1];
#ifndef BREAK_REPAIRS
	repairs++;                                              /* each worker writes its own held again */
#endif
	event[0] = true; event[1] = true
	}
inline add(s, change) { held[s] = held[s] + (change); check(); total = total + (change) }

#ifdef BREAK_TURN
#define turn(s) skip
#else
#define turn(s) cursor = s                          /* never passes over a database that waits */
#endif

/* Grant to another one. */
inline give(s) {
	d_step { start_turn(s); turn(1 - (s)) };
#ifdef BREAK_ORDER
	grant[s] = true; add(s, 1);
#else
	add(s, 1); grant[s] = true;                             /* a held that no grant explains is taken back by its owner */
#endif
#ifndef BREAK_ONCE
	waiting[s] = false;                                     /* until it came for it */
#endif
#ifndef BREAK_WAKE
	event[s] = true
#else
	skip
#endif
	}
/* Whoever is gone waits for nothing, and an untaken grant of it goes back. */
inline bury(s) {
	demand[s] = false; waiting[s] = false; passed[s] = 0;
#ifndef BREAK_BURY
	if
	:: grant[s] -> grant[s] = false; add(s, -1)
	:: else
	fi
#else
	skip
#endif
	}

#define OTHER_FIRST(me) (cursor == 1 - me || !WANT(me))
#define DUE(me) (event[me] || changed[me] || WANT(me) != published[me])

inline exchange(me) {
	event[me] = false;
	enter(me);
	/* write back what ended */
	if
	:: changed[me] || seen[me] != repairs ->
		if
		:: mine[me] + grant[me] != held[me] -> x = held[me]; held[me] = mine[me] + grant[me]; check(); total = total + held[me] - x; x = 0
		:: else
		fi
	:: else
	fi;
	d_step { seen[me] = repairs; changed[me] = false };
	/* take what was granted */
	if
	:: grant[me] -> grant[me] = false;
		if
		:: WANT(me) -> d_step { mine[me]++; taken[me]++ }
		:: else -> add(me, -1)
		fi
	:: else
	fi;
	/* turns */
	do
	:: total < CAP && waiting[1 - me] && OTHER_FIRST(me) -> give(1 - me)
	:: total < CAP && WANT(me) && !(waiting[1 - me] && OTHER_FIRST(me)) ->
		d_step { start_turn(me); turn(1 - me) }; add(me, 1); d_step { mine[me]++; taken[me]++ }
	:: else -> break
	od;
	skip;
	/* publish */
	d_step { demand[me] = WANT(me); published[me] = WANT(me) };
	waiting[me] = demand[me];
	if :: !demand[me] -> passed[me] = 0 :: else fi;
	leave() }

inline attach(me) {
	enter(me); bury(me); leave();
	d_step { mine[me] = rows[me]; changed[me] = true; seen[me] = 255; ended[me] = 0 } }

inline die(me) { d_step {
	killed[me] = false; alive[me] = false; buried[me] = false;
	if
	:: owner == me && fails[me] -> owner = FREE             /* it left the lock by an exception */
	:: owner == me && !fails[me] -> owner_died = true
	:: else
	fi;
	fails[me] = false; mine[me] = 0; taken[me] = 0; changed[me] = false; published[me] = false; event[me] = false; ended[me] = 0; x = 0 } }

proctype Worker(byte me) {
	byte x;
again:
	{
		do
		:: DUE(me) -> exchange(me)
		:: taken[me] > 0 -> d_step { taken[me]--;           /* claim; what does not come back was cancelled */
			if :: pending[me] > 0 -> pending[me]--; rows[me]++; check() :: else -> mine[me]--; changed[me] = true fi }
		:: d_step { pending[me] == 1 && taken[me] == 0 && published[me] && !frozen -> pending[me]-- }   /* a user cancels it */
		:: ended[me] > 0 -> d_step { ended[me]--; mine[me]--; changed[me] = true }
		od
	} unless { killed[me] };
died:
	skip;
	die(me);
	{
		buried[me] && !gone[me] -> alive[me] = true;                     /* its successor, if one comes */
		attach(me);
		goto again
	} unless { killed[me] };
	goto died
}

/* After each death: what the dead one waited for goes, others are granted anew, all are woken. */
proctype Master() {
	byte s;
	do
	:: !buried[0] || !buried[1] ->
		d_step { if :: !buried[0] -> s = 0 :: else -> s = 1 fi };
#ifndef BREAK_AFTER
		enter(MASTER);
		bury(s);
		do
		:: total < CAP && waiting[0] && (cursor == 0 || !waiting[1]) -> give(0)
		:: total < CAP && waiting[1] && (cursor == 1 || !waiting[0]) -> give(1)
		:: else -> break
		od;
		leave();
		event[0] = true; event[1] = true;
#endif
		buried[s] = true
	od
}

#define quiet(s) assert(alive[s] && held[s] == rows[s] && (pending[s] == 0 || total >= CAP) || !alive[s] && gone[s] && !grant[s] && !demand[s] && held[s] >= rows[s])

proctype Environment() {
	do
	:: d_step { rows[0] > 0 && !frozen -> rows[0]--; if :: alive[0] -> ended[0]++ :: else fi }
	:: d_step { rows[1] > 0 && !frozen -> rows[1]--; if :: alive[1] -> ended[1]++ :: else fi }
	:: d_step { !frozen -> frozen = true }
	:: d_step { deaths < DEATHS && alive[0] && !killed[0] -> deaths++; killed[0] = true }
	:: d_step { deaths < DEATHS && alive[0] && !killed[0] && owner == 0 -> deaths++; killed[0] = true; fails[0] = true }
	:: d_step { !gone[0] && !alive[0] -> gone[0] = true }
	:: timeout -> break
	od;
	/* nothing moves any more */
	assert(owner == FREE && !dirty && total == held[0] + held[1]);
	quiet(0); quiet(1)
}

init { atomic { run Worker(0); run Worker(1); run Master(); run Environment() } }
