/* What the tools share: whom they are about, log2 histograms, time. Include vmlinux.h first. */
#ifndef FASTRTP_TOOLS_BPF_H
#define FASTRTP_TOOLS_BPF_H

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#define TASK_COMM_LEN 16
#define SLOTS 40

char LICENSE[] SEC("license") = "GPL";

enum by { BY_ALL, BY_THREAD, BY_PROCESS };

/* Only this thread; 0: all. */
const volatile __u32 targ_pid = 0;
/* One row for all, for each thread, for each process. */
const volatile __u32 by = BY_ALL;
/* Nanoseconds in a unit of the histogram. */
const volatile __u64 unit_ns = 1000;

struct who {
	__u32 pid;
	char comm[TASK_COMM_LEN];
};

/* slots[s]: values of [2^s, 2^(s+1)) units, slots[0] from 0. */
struct hist {
	__u64 count;
	__u64 total_ns;
	__u64 longest_ns;
	__u32 slots[SLOTS];
};

/* Anything that began, by what it is known by: when. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 20);
	__type(key, __u64);
	__type(value, __u64);
} began SEC(".maps");

static struct hist no_hist;

static __always_inline void begin(__u64 what)
{
	__u64 now = bpf_ktime_get_ns();

	bpf_map_update_elem(&began, &what, &now, BPF_ANY);
}

/* Whether it had begun; how long ago, and it is over. */
static __always_inline bool end(__u64 what, __u64 *took)
{
	__u64 *since = bpf_map_lookup_elem(&began, &what);

	if (!since)
		return false;
	*took = bpf_ktime_get_ns() - *since;
	bpf_map_delete_elem(&began, &what);
	return true;
}

static __always_inline __u32 log2_of(__u64 value)
{
	__u32 slot = 0;

	for (int shift = 32; shift; shift >>= 1) {
		if (value >> shift) {
			value >>= shift;
			slot += shift;
		}
	}
	return slot;
}

static __always_inline void count_in(struct hist *hist, __u64 ns)
{
	__u32 slot = log2_of(ns / unit_ns);

	barrier_var(slot);
	if (slot >= SLOTS)
		slot = SLOTS - 1;
	__sync_fetch_and_add(&hist->slots[slot], 1);
	__sync_fetch_and_add(&hist->count, 1);
	__sync_fetch_and_add(&hist->total_ns, ns);
	if (ns > hist->longest_ns)
		hist->longest_ns = ns;
}

/* The element of a key, made from `zero` where it is not there. */
static __always_inline void *element(void *map, const void *key, const void *zero)
{
	void *found = bpf_map_lookup_elem(map, key);

	if (found)
		return found;
	bpf_map_update_elem(map, key, zero, BPF_NOEXIST);
	return bpf_map_lookup_elem(map, key);
}

static __always_inline bool is_wanted(__u32 pid)
{
	return !targ_pid || pid == targ_pid;
}

/* Whose row it is. A thread has its own name; a process that of the thread which is seen first. */
static __always_inline void name_task(struct who *who, struct task_struct *task)
{
	if (by == BY_ALL)
		return;
	who->pid = by == BY_THREAD ? task->pid : task->tgid;
	if (by == BY_THREAD)
		BPF_CORE_READ_STR_INTO(&who->comm, task, comm);
}

#define HISTS(name, key_type)                                                                                                    \
	struct {                                                                                                                 \
		__uint(type, BPF_MAP_TYPE_HASH);                                                                                 \
		__uint(max_entries, 65536);                                                                                      \
		__type(key, key_type);                                                                                           \
		__type(value, struct hist);                                                                                      \
	} name SEC(".maps")

#define EVENTS(name)                                                                                                             \
	struct {                                                                                                                 \
		__uint(type, BPF_MAP_TYPE_RINGBUF);                                                                              \
		__uint(max_entries, 1 << 20);                                                                                    \
	} name SEC(".maps");                                                                                                     \
	/* the types of an object are those that something with a name has */                                                    \
	const struct event *record_of_##name __attribute__((unused))

#endif
