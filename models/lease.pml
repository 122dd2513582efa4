/* One capacity over several supervisors: permits leased from a ledger in PostgreSQL.

   Two supervisors (members), two databases, one channel of capacity CAP. Every interleaving of: jobs that start and
   end; statements to the ledger, where the statement or its answer is lost or late; leases that run out; supervisors
   that die or are stopped by plan; database sessions that are lost, and the leader lock with them; a ledger that
   restarts, or fails over to a standby that lost its history.
   Property: the jobs that run in Odoo are never more than CAP; nor are the permits in a ledger that lost nothing.

       spin -DCAP=2 -DSTARTS=3 -a lease.pml && gcc -O2 -DSAFETY -DHC4 -o pan pan.c && ./pan -E -m200000

   The property needs each RULE: with -DBREAK_<RULE> the search finds a counter-example. scripts/models checks both. */

#ifndef CAP
#define CAP 2
#endif
#ifndef STARTS
#define STARTS 3        /* jobs in all */
#endif
/* How often each fault may happen. */
#ifndef SESSIONS
#define SESSIONS 1      /* sessions with the ledger lost */
#endif
#ifndef DATABASES
#define DATABASES 1     /* sessions with a database lost */
#endif
#ifndef RUNOUTS
#define RUNOUTS 1       /* deadlines passed without a renewal */
#endif
#ifndef DEATHS
#define DEATHS 2        /* supervisors killed */
#endif
#ifndef DRAINS
#define DRAINS 0        /* supervisors stopped by plan: their databases are handed over */
#endif
#ifndef FAILOVERS
#define FAILOVERS 0     /* the ledger restarted, with or without its history */
#endif
#ifndef FLOORS
#define FLOORS 0        /* permits that supervisor 0 keeps for when the ledger is away: its floor */
#endif
#define FLOOR_OF(m) ((m) == 0 -> FLOORS : 0)
#define NONE 2
#define i_(m, d) ((m) * 2 + (d))

#ifdef BREAK_SERVE
#define RULE_SERVE(d) true
#else
#define RULE_SERVE(d) settled[d]                    /* the ledger knows who serves it before the first start there */
#endif
#ifdef BREAK_FENCE
#define RULE_FENCE(o, m) true
#else
#define RULE_FENCE(o, m) (o.epoch == known[m])      /* a statement of an older session does nothing */
#endif
#ifdef BREAK_TERM
#define RULE_TERM(o) true
#else
#define RULE_TERM(o) (o.what != settle || o.term >= settled_term[o.db])  /* who settles holds the lock, or did last */
#endif
#ifdef BREAK_DEADLINE
#define RULE_DEADLINE(m) true
#else
#define RULE_DEADLINE(m) (!alive[m] || !fresh[m])   /* a member's own deadline ends before the ledger's */
#endif

#ifdef BREAK_BARRIER
#define RULE_BARRIER false
#else
#define RULE_BARRIER barrier                        /* after a restart the ledger may know less than what runs */
#endif
#ifdef BREAK_WAIT
#define MAY_CLAIM true
#else
#define MAY_CLAIM !barrier                          /* a member that registers after a restart takes its own first */
#endif
#ifdef BREAK_EXCESS
#define RULE_EXCESS 0
#else
#define RULE_EXCESS EXCESS                          /* what a member counted beyond its lease takes room, too */
#endif
#ifdef BREAK_BEYOND
#define BEYOND 0
#define BEYOND_OF(m) 0
#else
#define BEYOND (LEDGER + EXCESS > CAP -> LEDGER + EXCESS - CAP : 0)
#define BEYOND_OF(m) (LEDGER + EXCESS > CAP + excess[m] -> LEDGER + EXCESS - CAP - excess[m] : 0)
/* RULE BEYOND: an old ledger may have given more than there is; nobody claims that. */
#endif
#ifdef BREAK_LEAVE
#define MAY_LEAVE(m) true
#else
#define MAY_LEAVE(m) (HELD(m) == 0)                 /* the permits of running jobs are handed over first */
#endif

#ifdef BREAK_RESERVE
#define KEPT(m) 0
#else
#define KEPT(m) reserve[m]                          /* a lost member may go on with its floor: nobody gets that part of its limbo */
#endif
#ifdef BREAK_LOWER
#define LOWER(m)
#else
#define LOWER(m) least(floor[m], floor[m], word[m]) /* a floor that is smaller now is so here before it is in the ledger */
#endif

/* Odoo */
byte jobs[4];                   /* running, by [member that started it, database]; they outlive their supervisor */
byte starts;
#define RUNNING (jobs[0] + jobs[1] + jobs[2] + jobs[3])
#define rows(d) (jobs[i_(0, d)] + jobs[i_(1, d)])

/* supervisors */
bool alive[2], fresh[2];        /* fresh: its own deadline has not passed */
bool registered[2];             /* in this session with the ledger */
bool draining[2];               /* it stops by plan: it has let all databases go */
byte word[2];                   /* CAPACITY in its own table: what it may hold */
byte floor[2];                  /* of these, what it may use past its own deadline */
byte held[4];                   /* permits that it holds, by [member, database] */
#define HELD(m) (held[i_(m, 0)] + held[i_(m, 1)])
byte owner[2];                  /* who has the leader lock of a database */
bool counted[2];                /* its owner has counted its rows */
bool settled[2];                /* and told the ledger */

/* statements: at most one at a time for each member, and one left over from a lost session */
mtype = { nothing, register, renew, take, give, settle, drop, leave };
typedef Op { mtype what = nothing; byte epoch; byte keep; bit db; byte term; byte n; byte over; byte may; byte own; byte in; bool done; bool ok; byte got }
Op op[2], late[2];
byte epoch[2];                  /* number of the member's session */
byte term[2];                   /* of each database: grows with each change of its leader lock's holder */

/* the ledger */
byte lease[2], known[2];        /* permits leased; newest session seen */
bool valid[2];                  /* the lease has not run out */
byte reserve[2];                /* the floor, part of the lease or of the limbo after it */
byte rest[2];                   /* limbo of a member whose lease ran out: for which database is not known */
byte left[2];                   /* limbo of a database: its former server let go of jobs that run there */
bool serves[4];                 /* [member, database] */
byte settled_term[2];           /* newest term that settled a database */
/* Jobs that a member found running beyond its lease, and the limbos of them. They take room; nobody may claim them. */
byte excess[2], rest_over[2], left_over[2];
bool barrier;                   /* no takes until all have said what they hold */
bool lost;                      /* history was lost */
#define EXCESS (excess[0] + excess[1] + rest_over[0] + rest_over[1] + left_over[0] + left_over[1])
#define LEDGER (lease[0] + lease[1] + rest[0] + rest[1] + left[0] + left[1])

byte sessions, databases, ran_out, deaths, drains, failovers;
byte x, n;

inline least(z, a, b) { if :: (a) < (b) -> z = (a) :: else -> z = (b) fi }
inline forget(o) { o.what = nothing; o.epoch = 0; o.keep = 0; o.db = 0; o.term = 0; o.n = 0; o.over = 0; o.may = 0; o.own = 0; o.in = 0; o.done = false; o.ok = false; o.got = 0 }
inline copy(a, b) { b.what = a.what; b.epoch = a.epoch; b.keep = a.keep; b.db = a.db; b.term = a.term; b.n = a.n; b.over = a.over; b.may = a.may; b.own = a.own; b.in = a.in }
#define SERVES_ANY(m) (owner[0] == m && counted[0] && settled[0] || owner[1] == m && counted[1] && settled[1])
#define RIGHT(m) (draining[m] || !alive[m] -> 0 : (fresh[m] -> word[m] : (SERVES_ANY(m) -> floor[m] : 0)))       /* what it may hold and use */
inline check() { assert(RIGHT(0) + RIGHT(1) <= CAP); assert(RUNNING <= CAP) }

/* The ledger executes a statement of member m. */
inline execute(o, m, other) {
	o.done = true; o.ok = false; o.got = 0;
	if
	:: o.what == register && o.epoch > known[m] ->
		known[m] = o.epoch; o.ok = true;
		if
		:: !valid[m] && barrier ->                                  /* it knows better than the ledger */
			lease[m] = o.may; excess[m] = o.over; rest[m] = 0; rest_over[m] = 0; valid[m] = true;
			serves[i_(m, 0)] = serves[i_(m, 0)] || (o.in & 1); serves[i_(m, 1)] = serves[i_(m, 1)] || (o.in & 2)
		:: !valid[m] && !barrier -> n = BEYOND; least(x, o.keep, reserve[m]); least(x, x, rest[m]); least(lease[m], o.n, rest[m]); lease[m] = (lease[m] < n + x -> x : lease[m] - n); x = 0; n = 0; excess[m] = (o.own > lease[m] -> o.own - lease[m] : 0); rest[m] = 0; rest_over[m] = 0; valid[m] = true   /* what it may still hold comes back from its limbo */
		:: else
		fi;                                                 /* what it serves stays written: only a settle or a drop removes it */
		least(reserve[m], FLOOR_OF(m), lease[m]); o.keep = reserve[m];
		o.got = lease[m]
	:: o.what != register && valid[m] && RULE_FENCE(o, m) && RULE_TERM(o) ->
		o.ok = true;
		if
		:: o.what == renew -> excess[m] = o.over
		:: o.what == leave -> lease[m] = 0; excess[m] = 0; reserve[m] = 0; valid[m] = false; serves[i_(m, 0)] = false; serves[i_(m, 1)] = false
		:: o.what == take -> if :: !RULE_BARRIER && LEDGER + RULE_EXCESS < CAP -> lease[m]++; o.got = 1 :: else fi
		:: o.what == give -> if :: lease[m] > 0 -> lease[m]-- :: else fi
		:: o.what == drop ->
			least(x, o.n, lease[m]); lease[m] = lease[m] - x; left[o.db] = left[o.db] + x;
			excess[m] = o.over; left_over[o.db] = left_over[o.db] + o.may;
			serves[i_(m, o.db)] = false
		:: o.what == settle ->                              /* it has counted o.db, and holds o.n in all */
			serves[i_(m, o.db)] = true; settled_term[o.db] = o.term;
			if :: o.over > excess[m] -> excess[m] = o.over :: else fi;
			if :: o.n > lease[m] -> n = o.n - lease[m] :: else -> n = 0 fi;
			n = (n > BEYOND_OF(m) -> n - BEYOND_OF(m) : 0);
			least(x, n, left[o.db]); lease[m] = lease[m] + x; o.got = o.got + x; n = n - x; left[o.db] = 0; left_over[o.db] = 0;
			if
			:: !valid[other] && serves[i_(other, o.db)] && MAY_CLAIM ->
				n = (n > BEYOND_OF(m) -> n - BEYOND_OF(m) : 0); least(x, n, rest[other] - KEPT(other)); lease[m] = lease[m] + x; o.got = o.got + x; rest[other] = rest[other] - x;
				serves[i_(other, o.db)] = false;
				if
#ifdef BREAK_REST
				:: true -> rest[other] = 0; rest_over[other] = 0; reserve[other] = 0
#else
				:: !serves[i_(other, 0)] && !serves[i_(other, 1)] -> rest[other] = 0; rest_over[other] = 0; reserve[other] = 0   /* RULE REST: all its databases are settled */
				:: else
#endif
				fi
			:: else
			fi
		fi;
		if :: o.what != leave -> least(reserve[m], FLOOR_OF(m), lease[m]); o.keep = reserve[m] :: else fi
	:: else
	fi;
	x = 0; n = 0
}

inline Execute(m) { d_step { op[m].what != nothing && !op[m].done -> execute(op[m], m, 1 - m); check() } }
inline ExecuteLate(m) { d_step { late[m].what != nothing -> execute(late[m], m, 1 - m); forget(late[m]); check() } }

inline Answer(m) { d_step { alive[m] && op[m].what != nothing && op[m].done ->
	if
	:: !op[m].ok -> registered[m] = false
	:: op[m].ok && op[m].what == register ->
		registered[m] = true; fresh[m] = true; word[m] = op[m].got; floor[m] = 0;
		settled[0] = settled[0] && owner[0] != m; settled[1] = settled[1] && owner[1] != m   /* it says anew what it serves */
	:: op[m].ok && op[m].what == renew -> fresh[m] = true
	:: op[m].ok && op[m].what == take -> word[m] = word[m] + op[m].got
#ifdef BREAK_GIVE
	:: op[m].ok && op[m].what == give -> if :: word[m] > 0 -> word[m]-- :: else fi
#else
	:: op[m].ok && op[m].what == give
#endif
	:: op[m].ok && op[m].what == drop -> held[i_(m, op[m].db)] = 0
	:: op[m].ok && op[m].what == leave -> alive[m] = false; fresh[m] = false; registered[m] = false; word[m] = 0; floor[m] = 0; epoch[m] = 0; held[i_(m, 0)] = 0; held[i_(m, 1)] = 0
	:: op[m].ok && op[m].what == settle -> word[m] = word[m] + op[m].got; if :: owner[op[m].db] == m && op[m].term == term[op[m].db] -> settled[op[m].db] = true :: else fi
	fi;
	if :: op[m].ok && op[m].what != leave -> floor[m] = op[m].keep :: else fi;   /* RULE FIRST: the ledger knows of a floor before it is used */
	forget(op[m]) } }

#define IDLE(m) (alive[m] && op[m].what == nothing)
#define SEND(m, w, dd, nn) op[m].what = w; op[m].epoch = epoch[m]; op[m].db = dd; op[m].n = nn
#define SEND_OVER(m) if :: HELD(m) > word[m] -> op[m].over = HELD(m) - word[m] :: else fi

#define HOLDS(m, d) ((owner[d] == m || held[i_(m, d)] > 0) -> 1 : 0)
#ifdef BREAK_PAST
#define MAY(m) word[m]
#else
#define MAY(m) (fresh[m] -> word[m] : (SERVES_ANY(m) -> floor[m] : 0))  /* past its own deadline it has no right but to a floor that it can use */
#endif
inline Register(m) { d_step { IDLE(m) && !registered[m] && epoch[m] < 2 + SESSIONS + FAILOVERS -> epoch[m]++;
#ifdef BREAK_UPPER
	SEND(m, register, 0, HELD(m));
#else
	if :: word[m] > HELD(m) -> SEND(m, register, 0, word[m]) :: else -> SEND(m, register, 0, HELD(m)) fi;  /* RULE UPPER: what it may hold, not what it holds now */
#endif
	op[m].keep = (fresh[m] || SERVES_ANY(m) -> floor[m] : 0);
	op[m].may = MAY(m);                    /* for a ledger behind its barrier */
	op[m].over = (HELD(m) > op[m].may -> HELD(m) - op[m].may : 0);
	op[m].own = HELD(m);
	op[m].in = HOLDS(m, 0) + 2 * HOLDS(m, 1) } }
inline Renew(m) { d_step { IDLE(m) && registered[m] && (ran_out < RUNOUTS || excess[m] > 0) -> SEND(m, renew, 0, 0); SEND_OVER(m) } }  /* what runs out no more needs none */
inline Take(m) { d_step { IDLE(m) && registered[m] && !draining[m] && LEDGER < CAP -> SEND(m, take, 0, 0) } }
#ifdef BREAK_GIVE
inline Give(m) { d_step { IDLE(m) && registered[m] && word[m] > HELD(m) && word[m] > FLOOR_OF(m) -> SEND(m, give, 0, 0) } }
#else
inline Give(m) { d_step { IDLE(m) && registered[m] && word[m] > HELD(m) && word[m] > FLOOR_OF(m) -> word[m]--; LOWER(m); SEND(m, give, 0, 0) } }  /* RULE GIVE: the local word first */
#endif
#define UNSETTLED(m, d) (!settled[d] || left[d] + left_over[d] > 0 || (!valid[1 - m] && serves[i_(1 - m, d)]))
inline Settle(m, d) { d_step { IDLE(m) && registered[m] && owner[d] == m && counted[d] && UNSETTLED(m, d) -> SEND(m, settle, d, HELD(m)); SEND_OVER(m); op[m].term = term[d] } }
/* It lost the database for good, or let it go: the permits of the jobs that run there pass to the database's limbo. */
inline Drop(m, d) { d_step { IDLE(m) && registered[m] && (owner[d] == 1 - m || draining[m]) && held[i_(m, d)] > 0 ->
	least(x, held[i_(m, d)], word[m]); word[m] = word[m] - x; LOWER(m); SEND(m, drop, d, x); op[m].may = held[i_(m, d)] - x; x = HELD(m) - held[i_(m, d)];
	op[m].over = (x > word[m] -> x - word[m] : 0); x = 0;   /* its other jobs may now be beyond its lease */
#ifdef BREAK_DROP
	held[i_(m, d)] = 0
#else
	skip                                                    /* RULE DROP: they are forgotten after the answer */
#endif
	} }

#ifdef BREAK_FIRST
#define FLOOR(m) FLOOR_OF(m)
#else
#define FLOOR(m) floor[m]
#endif
#define MAY_HOLD(m) (fresh[m] -> word[m] : FLOOR(m))
inline Start(m, d) { d_step { alive[m] && !draining[m] && owner[d] == m && counted[d] && HELD(m) < MAY_HOLD(m) && starts < STARTS && RULE_SERVE(d) ->
	held[i_(m, d)]++; jobs[i_(m, d)]++; starts++; check() } }
/* Its request tells the one who sent it, the rows tell the one who serves the database. */
inline End(m, d) { d_step { jobs[i_(m, d)] > 0 -> jobs[i_(m, d)]--;
	if :: alive[m] && held[i_(m, d)] > 0 -> held[i_(m, d)]-- :: else fi;
	if :: owner[d] == 1 - m && alive[1 - m] && counted[d] && held[i_(1 - m, d)] > 0 -> held[i_(1 - m, d)]-- :: else fi } }

/* Stopped by plan: it starts nothing, lets its databases go, hands over what runs there, and leaves. */
inline Drain(m) { d_step { alive[m] && !draining[m] && drains < DRAINS -> drains++; draining[m] = true;
	if :: owner[0] == m -> owner[0] = NONE; counted[0] = false; settled[0] = false :: else fi;
	if :: owner[1] == m -> owner[1] = NONE; counted[1] = false; settled[1] = false :: else fi } }
inline Leave(m) { d_step { IDLE(m) && registered[m] && draining[m] && MAY_LEAVE(m) -> SEND(m, leave, 0, 0) } }

inline Lock(m, d) { d_step { alive[m] && !draining[m] && owner[d] == NONE -> owner[d] = m; term[d]++ } }
inline Count(m, d) { d_step { alive[m] && owner[d] == m && !counted[d] && !(op[m].what == drop && op[m].db == d) ->
	held[i_(m, d)] = rows(d); counted[d] = true } }

inline LoseDatabase(m, d) { d_step { alive[m] && owner[d] == m && databases < DATABASES ->
	owner[d] = NONE; counted[d] = false; settled[d] = false; databases++ } }
inline LoseLedger(m) { d_step { alive[m] && late[m].what == nothing && (op[m].what != nothing || registered[m]) && sessions < SESSIONS ->
	sessions++; registered[m] = false;
	if :: op[m].what != nothing && !op[m].done -> copy(op[m], late[m]) :: else fi;
	forget(op[m]) } }
inline Deadline(m) { d_step { alive[m] && fresh[m] && ran_out < RUNOUTS -> ran_out++; fresh[m] = false; registered[m] = false } }
/* RULE SENT: the own deadline counts from before the sending. */
#ifdef BREAK_SENT
inline expire(m) { skip }
#else
inline expire(m) {
	if
	:: !valid[m] && (op[m].what == register || op[m].what == renew) && op[m].done -> op[m].ok = false
	:: else
	fi }
#endif
inline RunOut(m) { d_step { valid[m] && RULE_DEADLINE(m) ->
	valid[m] = false;
#ifdef BREAK_LIMBO
	lease[m] = 0;
#else
	rest[m] = rest[m] + lease[m]; rest_over[m] = rest_over[m] + excess[m]; lease[m] = 0; excess[m] = 0;   /* RULE LIMBO: its jobs run on */
#endif
	expire(m) } }
/* Nobody took its databases over for so long that what ran there is over (the give-up time). */
#define OVER(m, d) (!serves[i_(m, d)] || rows(d) == 0)
inline GiveUp(m) { d_step { !barrier && !valid[m] && rest[m] + rest_over[m] > 0 && OVER(m, 0) && OVER(m, 1) && rest[m] + rest_over[m] > KEPT(m) -> rest[m] = KEPT(m); rest_over[m] = 0 } }
inline Die(m) { d_step { alive[m] && deaths < DEATHS -> deaths++;
	alive[m] = false; fresh[m] = false; registered[m] = false; draining[m] = false; word[m] = 0; floor[m] = 0; held[i_(m, 0)] = 0; held[i_(m, 1)] = 0; epoch[m] = 0;
	if :: op[m].what != nothing && !op[m].done && late[m].what == nothing -> copy(op[m], late[m]) :: else fi;
	forget(op[m]);
	if :: owner[0] == m -> owner[0] = NONE; counted[0] = false; settled[0] = false :: else fi;
	if :: owner[1] == m -> owner[1] = NONE; counted[1] = false; settled[1] = false :: else fi } }

/* The ledger's server restarts. Its sessions end; a statement that was executed may still be answered. Its history is
   whole, or lost: the emptiest ledger is the one that allows most. */
inline Session(m) {
	forget(late[m]);
	if :: op[m].what != nothing && !op[m].done -> forget(op[m]); registered[m] = false
	:: op[m].what == nothing -> registered[m] = false
	:: else
	fi }
inline Failover(loses, stale) { d_step { failovers < FAILOVERS -> failovers++; barrier = true;
	Session(0); Session(1);
	rest[0] = rest[0] + lease[0]; rest[1] = rest[1] + lease[1]; rest_over[0] = rest_over[0] + excess[0]; rest_over[1] = rest_over[1] + excess[1];
	lease[0] = 0; lease[1] = 0; excess[0] = 0; excess[1] = 0; valid[0] = false; valid[1] = false;
	if
	:: loses -> lost = true; 
		/* A floor is old: it is in the history that is left, even if it was freed since. So may a limbo be that was claimed. */
		if :: stale -> reserve[0] = FLOORS; rest[0] = CAP :: else -> rest[0] = reserve[0] fi; rest[1] = 0;
		left[0] = 0; left[1] = 0; rest_over[0] = 0; rest_over[1] = 0; left_over[0] = 0; left_over[1] = 0; known[0] = 0; known[1] = 0;
		serves[0] = false; serves[1] = false; serves[2] = false; serves[3] = false; settled_term[0] = 0; settled_term[1] = 0
	:: else
	fi } }
/* Two lease times are over: who did not register stopped at its own deadline, and (assumed) who serves a database
   where jobs run has counted them and told the ledger. */
#define SAID(m) (valid[m] || !alive[m] || !fresh[m])
#define TOLD(d) (rows(d) == 0 || settled[d] && valid[owner[d]])
inline BarrierOver() { d_step { barrier && SAID(0) && SAID(1) && (!lost || TOLD(0) && TOLD(1)) -> barrier = false; expire(0); expire(1) } }

#define each(A) :: A(0) :: A(1)
#define each_db(A) :: A(0, 0) :: A(0, 1) :: A(1, 0) :: A(1, 1)

init {
	d_step {
		alive[0] = true; alive[1] = true; fresh[0] = true; fresh[1] = true; registered[0] = true; registered[1] = true; valid[0] = true; valid[1] = true;
		epoch[0] = 1; epoch[1] = 1; known[0] = 1; known[1] = 1;
		word[0] = FLOORS; floor[0] = FLOORS; lease[0] = FLOORS; reserve[0] = FLOORS;
		owner[0] = 0; owner[1] = 1; counted[0] = true; counted[1] = true; settled[0] = true; settled[1] = true; serves[0] = true; serves[3] = true
	};
	do
	each_db(Start) each_db(End) each_db(Lock) each_db(Count) each_db(Settle) each_db(Drop) each_db(LoseDatabase)
	each(Register) each(Renew) each(Take) each(Give) each(Execute) each(ExecuteLate) each(Answer) each(LoseLedger) each(Deadline) each(RunOut) each(GiveUp) each(Die)
	each(Drain) each(Leave) :: Failover(true, 0) :: Failover(true, 1) :: Failover(false, 0) :: BarrierOver()
	od
}
