/* What this machine gives two threads that count in hash tables, each in its own or both in one: the baseline of the scaling suite. */
#include <pthread.h>

#include "bench.h"

#define SLOTS 2048
#define LINE 8 /* u64s */

struct slot { u32 used, key; u64 value; };
struct work { struct slot *slots; u64 events, seed; int shared; };

static struct slot tables[2][SLOTS] __attribute__((aligned(4096)));
static u64 contended;

static void *count(void *argument)
{
	struct work *work = argument;

	for (u64 i = 0; i < work->events; i++) {
		u32 key = ((u32)((i + work->seed) * 0x9e3779b1u) * 1024ull) >> 32;
		u32 hash = (key ^ (key >> 16)) * 0x85ebca6bu;
		u64 at = ((hash ^ (hash >> 13)) * 0xc2b2ae35u >> 4) & (SLOTS - 1);

		if (work->shared) {
			__atomic_fetch_add(&contended, 1, __ATOMIC_RELAXED);
			continue;
		}
		while (work->slots[at].used && work->slots[at].key != key)
			at = (at + 1) & (SLOTS - 1);
		work->slots[at].used = 1;
		work->slots[at].key = key;
		__atomic_fetch_add(&work->slots[at].value, 1, __ATOMIC_RELAXED);
	}
	return 0;
}

/* `events` in all, on one or two threads; `shared`: one counter for all, else a table each. */
u64 scale(u64 threads, u64 events, u64 shared)
{
	struct work work[2];
	pthread_t other;

	for (int i = 0; i < 2; i++)
		work[i] = (struct work){ tables[i], events / threads, i * 77777, shared };
	if (threads == 2 && pthread_create(&other, 0, count, &work[1]))
		return 0;
	count(&work[0]);
	if (threads == 2)
		pthread_join(other, 0);
	return events;
}
