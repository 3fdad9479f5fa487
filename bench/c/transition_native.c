/* The baseline of the transition suite: the same programs as transition.bpf.c as plain C functions, called through function
 * pointers by a loop. One thread and no atomics; the hash table is open addressing with linear probing, at most half full. */
#include <string.h>
#include <time.h>

#include "bench.h"

typedef u64 (*prog_fn)(u64 *ctx, void *env);

#define SLOTS(entries) (2 * (entries))

struct slot { u32 used, key; u64 value; };
struct table { u64 mask; struct slot *slots; };

static u64 array[1024], percpu[2][1024];
static u64 arrays[8][1024 + 72]; /* not a page apart: a processor would take one for the other */
static struct slot slots_1k[2048], slots_100k[262144], slots_updated[2048];
static struct table table_1k = { 2047, slots_1k }, table_100k = { 262143, slots_100k }, table_updated = { 2047, slots_updated };
static u8 ring[1 << 20];
static u64 ring_at;
u64 total, last, cpu;

INLINE u32 hash_of(u32 key)
{
	key = (key ^ (key >> 16)) * 0x85ebca6bu;
	key = (key ^ (key >> 13)) * 0xc2b2ae35u;
	return key ^ (key >> 16);
}

INLINE struct slot *find(struct table *table, u32 key)
{
	u64 at = hash_of(key) & table->mask;

	while (table->slots[at].used && table->slots[at].key != key)
		at = (at + 1) & table->mask;
	return &table->slots[at];
}

u64 empty(u64 *ctx, void *env) { return 0; }
u64 global_count(u64 *ctx, void *env) { total++; return 0; }

u64 array_count(u64 *ctx, void *env)
{
	u32 key = ctx[0];

	if (key < 1024)
		array[key]++;
	return 0;
}

/* What eight programs do, each with an array of its own. */
u64 array_count_x8(u64 *ctx, void *env)
{
	u32 key = ctx[0];

	if (key < 1024)
		for (int at = 0; at < 8; at++)
			arrays[at][key]++;
	return 0;
}

u64 percpu_array_count(u64 *ctx, void *env)
{
	u32 key = ctx[0];

	if (key < 1024)
		percpu[cpu][key]++;
	return 0;
}

INLINE u64 count_in(struct table *table, u32 key)
{
	struct slot *slot = find(table, key);

	if (!slot->used) {
		slot->used = 1;
		slot->key = key;
	}
	slot->value++;
	return 0;
}

u64 hash_count(u64 *ctx, void *env) { return count_in(&table_1k, ctx[0]); }
u64 hash_count_100k(u64 *ctx, void *env) { return count_in(&table_100k, ctx[0]); }

u64 hash_update(u64 *ctx, void *env)
{
	struct slot *slot = find(&table_updated, ctx[0]);

	slot->used = 1;
	slot->key = ctx[0];
	slot->value = ctx[1];
	return 0;
}

/* Room in a byte ring, filled, and given back. */
u64 ringbuf_discard(u64 *ctx, void *env)
{
	u64 at = ring_at & (sizeof(ring) - 1);
	u64 *record = (u64 *)(ring + at);

	ring_at += 24;
	if (at + 24 > sizeof(ring))
		return 0;
	record[0] = 16;
	record[1] = ctx[0];
	record[2] = ctx[1];
	return 0;
}

u64 ktime(u64 *ctx, void *env)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	last = now.tv_sec * 1000000000ull + now.tv_nsec;
	return 0;
}

u64 virtual_ktime(u64 *ctx, void *env)
{
	last = *(u64 *)env;
	return 0;
}

/* A recording's columns, as fastrtp has them, and a loop over them with the program inside. The kind of event is looked at, the
 * arguments are in memory for somebody else to see. */
struct columns { u64 *time; unsigned short *cpu, *event; u32 *row; u64 *key, *value; };

#define REPLAY(prog, env)                                                                                                        \
	void replay_##prog(struct columns *in, u64 events)                                                                       \
	{                                                                                                                        \
		for (u64 i = 0; i < events; i++) {                                                                               \
			u32 row = in->row[i];                                                                                    \
			u64 args[3] = { in->key[row], in->value[row], 1 };                                                       \
                                                                                                                                 \
			if (in->event[i])                                                                                        \
				continue;                                                                                        \
			cpu = in->cpu[i];                                                                                        \
			__asm__ volatile("" : : "r"(args) : "memory");                                                           \
			prog(args, env);                                                                                         \
		}                                                                                                                \
	}

REPLAY(empty, 0)
REPLAY(global_count, 0)
REPLAY(array_count, 0)
REPLAY(array_count_x8, 0)
REPLAY(percpu_array_count, 0)
REPLAY(hash_count, 0)
REPLAY(hash_count_100k, 0)
REPLAY(hash_update, 0)
REPLAY(ringbuf_discard, 0)
REPLAY(virtual_ktime, in->time + i)

/* `events` events with keys below `keys`, each given to every function of the list. */
u64 fire(u64 events, u64 keys, prog_fn *progs, void *env)
{
	u64 args[3];

	for (u64 i = 0; i < events; i++) {
		args[0] = ((u32)(i * 0x9e3779b1u) * keys) >> 32;
		args[1] = i;
		args[2] = 1;
		for (prog_fn *prog = progs; *prog; prog++)
			(*prog)(args, env);
	}
	return events;
}
