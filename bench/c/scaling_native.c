/* What this machine gives two threads of C that do what the programs of the scaling suite do: the ceiling of each case. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>

#include "bench.h"

#define KEYS 131072 /* most; tables have two slots a key */
#define RING (1 << 20)

enum kind { OWN, PERCPU, SHARED, RECORDS };

struct slot { u32 used, key; u64 value; };
struct work { u64 thread, threads, events, keys; int kind, cpu; };

static struct slot tables[2][2 * KEYS] __attribute__((aligned(4096)));
static u64 arrays[3][KEYS] __attribute__((aligned(4096)));
static u64 position __attribute__((aligned(128)));
char scaling_ring[RING] __attribute__((aligned(4096)));

static u32 key_of(u64 i, u64 keys)
{
	return ((u32)(i * 0x9e3779b1u) * keys) >> 32;
}

/* Each CPU's keys in a table of its own, counted as if others could: what a shared table gives at best. */
static void own(struct work *work)
{
	u64 mask = 2 * work->keys - 1;

	for (u64 i = 0; i < work->events; i++) {
		u64 at = i * work->threads + work->thread;
		u32 key = key_of(at >> 1, work->keys / 2), hash = (key ^ (key >> 16)) * 0x85ebca6bu;
		struct slot *table = tables[at & 1];

		at = ((hash ^ (hash >> 13)) * 0xc2b2ae35u >> 4) & mask;
		while (table[at].used && table[at].key != key)
			at = (at + 1) & mask;
		table[at].used = 1;
		table[at].key = key;
		__atomic_fetch_add(&table[at].value, 1, __ATOMIC_RELAXED);
	}
}

static void percpu(struct work *work)
{
	for (u64 i = 0; i < work->events; i++) {
		u64 at = i * work->threads + work->thread;

		++*(volatile u64 *)&arrays[at & 1][key_of(at >> 1, work->keys)];
	}
}

static void shared(struct work *work)
{
	for (u64 i = 0; i < work->events; i++)
		__atomic_fetch_add(&arrays[2][key_of(i * work->threads + work->thread, work->keys)], 1, __ATOMIC_RELAXED);
}

/* Room by one addition, a record with its header, and the header again. */
static void records(struct work *work)
{
	for (u64 i = 0; i < work->events; i++) {
		u64 at = __atomic_fetch_add(&position, 24, __ATOMIC_RELAXED) & (RING - 1);
		u64 *record = (u64 *)(scaling_ring + (at > RING - 24 ? 0 : at));

		record[0] = 16 | 1u << 31;
		record[1] = i;
		record[2] = work->thread;
		__atomic_store_n((u32 *)record, 16, __ATOMIC_RELEASE);
	}
}

static void *run(void *argument)
{
	static void (*const kinds[])(struct work *) = { own, percpu, shared, records };
	struct work *work = argument;
	cpu_set_t set;

	CPU_ZERO(&set);
	if (work->cpu >= 0) {
		CPU_SET(work->cpu, &set);
		sched_setaffinity(0, sizeof(set), &set);
	}
	kinds[work->kind](work);
	return 0;
}

/* `events` in all, on one thread or two, the second on `cpu` (-1: anywhere); `keys` is a power of two. */
u64 scale(u64 threads, u64 events, u64 kind, u64 keys, u64 cpu)
{
	struct work work[2];
	pthread_t other;

	for (u64 i = 0; i < 2; i++)
		work[i] = (struct work){ i, threads, events / threads, keys, kind, i ? (int)cpu : -1 };
	if (threads == 2 && pthread_create(&other, 0, run, &work[1]))
		return 0;
	run(&work[0]);
	if (threads == 2)
		pthread_join(other, 0);
	return events;
}
