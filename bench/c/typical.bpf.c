/* A program as tools have them: one map of rows, a histogram of powers of two in each. The load suite loads it. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

char LICENSE[] SEC("license") = "GPL";

struct row {
	__u64 last;
	__u64 count;
	__u64 total;
	__u32 slots[32];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, __u32);
	__type(value, struct row);
} rows SEC(".maps");

static __u32 log2(__u64 value)
{
	__u32 high = value >> 32, low = high ? high : (__u32)value, bits = high ? 32 : 0, shift;

	shift = (low > 0xFFFF) << 4;
	low >>= shift;
	bits += shift;
	shift = (low > 0xFF) << 3;
	low >>= shift;
	bits += shift;
	shift = (low > 0xF) << 2;
	low >>= shift;
	bits += shift;
	shift = (low > 3) << 1;
	low >>= shift;
	bits += shift;
	return bits + (low >> 1);
}

SEC("raw_tp/sched_switch")
int typical(__u64 *ctx)
{
	struct task_struct *prev = (struct task_struct *)ctx[1];
	__u32 pid = BPF_CORE_READ(prev, pid), slot;
	__u64 now = bpf_ktime_get_ns(), delta;
	struct row *row = bpf_map_lookup_elem(&rows, &pid);

	if (!row) {
		struct row fresh = { .last = now };

		bpf_map_update_elem(&rows, &pid, &fresh, BPF_NOEXIST);
		return 0;
	}
	delta = now - row->last;
	row->last = now;
	slot = log2(delta / 1000);
	if (slot > 31)
		slot = 31;
	__sync_fetch_and_add(&row->count, 1);
	__sync_fetch_and_add(&row->total, delta);
	__sync_fetch_and_add(&row->slots[slot], 1);
	return 0;
}
