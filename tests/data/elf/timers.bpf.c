/* bpf_timer: what it may be used for, and what it may not (test_timer.py names what is said of each program). */
#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int (*name)[val]
#define __type(name, val) typeof(val) *name
#define NULL ((void *)0)

typedef unsigned int __u32;
typedef unsigned long long __u64;

struct bpf_timer { __u64 __opaque[2]; } __attribute__((aligned(8)));

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static __u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static long (*bpf_timer_init)(struct bpf_timer *timer, void *map, __u64 flags) = (void *)169;
static long (*bpf_timer_set_callback)(struct bpf_timer *timer, void *callback) = (void *)170;
static long (*bpf_timer_start)(struct bpf_timer *timer, __u64 nsecs, __u64 flags) = (void *)171;
static long (*bpf_timer_cancel)(struct bpf_timer *timer) = (void *)172;

#define CLOCK_MONOTONIC 1

struct elem { __u64 count; struct bpf_timer timer; __u64 last; };

struct { __uint(type, 1); __uint(max_entries, 64); __type(key, __u32); __type(value, struct elem); } hash SEC(".maps");
struct { __uint(type, 1); __uint(max_entries, 64); __type(key, __u32); __type(value, struct elem); } other SEC(".maps");
struct { __uint(type, 2); __uint(max_entries, 4); __type(key, __u32); __type(value, struct elem); } array SEC(".maps");
struct { __uint(type, 9); __uint(max_entries, 2); __type(key, __u32); __type(value, struct elem); } lru SEC(".maps");

char LICENSE[] SEC("license") = "GPL";

__u64 trail[64];
__u64 logged;
long results[8];

static __attribute__((always_inline)) void note(__u64 what)
{
	if (logged < 64)
		trail[logged & 63] = what;
	logged++;
}

static int tick(void *map, __u32 *key, struct elem *value)
{
	value->count++;
	value->last = bpf_ktime_get_ns();
	note((__u64)*key << 32 | value->count);
	return 0;
}

static int again(void *map, __u32 *key, struct elem *value)
{
	tick(map, key, value);
	if (value->count < 5)
		bpf_timer_start(&value->timer, 1000000, 0);
	return 0;
}

static int cancels(void *map, __u32 *key, struct elem *value)
{
	results[0] = bpf_timer_cancel(&value->timer);
	results[1] = bpf_timer_init(&value->timer, map, CLOCK_MONOTONIC);
	results[2] = bpf_timer_set_callback(&value->timer, tick);
	results[3] = bpf_map_delete_elem(map, key);
	return 0;
}

static int bad_return(void *map, __u32 *key, struct elem *value)
{
	return 1;
}

static int unknown_return(void *map, __u32 *key, struct elem *value)
{
	return value->count;
}

static int past_key(void *map, __u64 *key, struct elem *value)
{
	results[0] = key[1];
	return 0;
}

static int touches(void *map, __u32 *key, struct elem *value)
{
	results[0] = *(__u64 *)&value->timer;
	return 0;
}

static struct elem *element(void *map, __u32 key)
{
	struct elem zero = {};

	bpf_map_update_elem(map, &key, &zero, 1);
	return bpf_map_lookup_elem(map, &key);
}

/* sys_enter(regs, id): a timer of `id` ns under the key id */
SEC("tp_btf/sys_enter")
int start(__u64 *ctx)
{
	struct elem *value = element(&hash, ctx[1]);

	if (!value)
		return 0;
	bpf_timer_init(&value->timer, &hash, CLOCK_MONOTONIC);
	bpf_timer_set_callback(&value->timer, tick);
	bpf_timer_start(&value->timer, ctx[1] * 1000000, 0);
	return 0;
}

SEC("?tp_btf/sys_enter")
int repeat(__u64 *ctx)
{
	__u32 key = ctx[1] & 3;
	struct elem *value = bpf_map_lookup_elem(&array, &key);

	if (!value)
		return 0;
	bpf_timer_init(&value->timer, &array, CLOCK_MONOTONIC);
	bpf_timer_set_callback(&value->timer, again);
	bpf_timer_start(&value->timer, 1000000, 0);
	return 0;
}

SEC("?tp_btf/sys_enter")
int statuses(__u64 *ctx)
{
	__u32 key = 0;
	struct elem *value = bpf_map_lookup_elem(&array, &key);

	if (!value)
		return 0;
	results[0] = bpf_timer_cancel(&value->timer);
	results[1] = bpf_timer_start(&value->timer, 0, 0);
	results[2] = bpf_timer_init(&value->timer, &array, 5);
	results[3] = bpf_timer_init(&value->timer, &array, CLOCK_MONOTONIC);
	results[4] = bpf_timer_init(&value->timer, &array, CLOCK_MONOTONIC);
	results[5] = bpf_timer_start(&value->timer, 0, 0);
	bpf_timer_set_callback(&value->timer, tick);
	results[6] = bpf_timer_start(&value->timer, 1000, 4);
	bpf_timer_start(&value->timer, 1000, 0);
	results[7] = bpf_timer_cancel(&value->timer) << 8 | bpf_timer_cancel(&value->timer);
	return 0;
}

SEC("?tp_btf/sys_enter")
int within(__u64 *ctx)
{
	struct elem *value = element(&hash, 1);

	if (!value)
		return 0;
	bpf_timer_init(&value->timer, &hash, CLOCK_MONOTONIC);
	bpf_timer_set_callback(&value->timer, cancels);
	bpf_timer_start(&value->timer, 0, 0);
	return 0;
}

SEC("?tp_btf/sys_enter")
int evicted(__u64 *ctx)
{
	struct elem *value = element(&lru, ctx[1]);

	if (!value)
		return 0;
	bpf_timer_init(&value->timer, &lru, CLOCK_MONOTONIC);
	bpf_timer_set_callback(&value->timer, tick);
	bpf_timer_start(&value->timer, 1000000, 0);
	return 0;
}

SEC("?raw_tp/sys_enter")
int raw_tp(__u64 *ctx)
{
	return !element(&hash, 0);
}

#define REFUSED(name, body)									\
SEC("?tp_btf/sys_enter")									\
int name(__u64 *ctx)										\
{												\
	__u32 key = 0;										\
	struct elem *value = bpf_map_lookup_elem(&array, &key);					\
												\
	if (!value)										\
		return 0;									\
	body;											\
	return 0;										\
}

REFUSED(load_of_timer, return *(__u64 *)&value->timer)
REFUSED(store_to_timer, *(__u64 *)&value->timer = 0)
REFUSED(not_the_timer, bpf_timer_cancel((void *)&value->last))
REFUSED(variable_place, bpf_timer_cancel((void *)value + (value->count & 8)))
REFUSED(wrong_map, bpf_timer_init(&value->timer, &hash, CLOCK_MONOTONIC))
REFUSED(on_the_stack, struct bpf_timer timer = {}; bpf_timer_cancel(&timer))
REFUSED(returns_one, bpf_timer_set_callback(&value->timer, bad_return))
REFUSED(returns_unknown, bpf_timer_set_callback(&value->timer, unknown_return))
REFUSED(reads_past_key, bpf_timer_set_callback(&value->timer, past_key))
REFUSED(reads_timer, bpf_timer_set_callback(&value->timer, touches))
REFUSED(value_as_data, bpf_map_update_elem(&array, &key, value, 0))
