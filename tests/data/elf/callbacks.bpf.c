/* Samples from user space, signals, and the vm_area_struct that is not there (test_callbacks.py). */
#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int (*name)[val]
#define __type(name, val) typeof(val) *name

typedef unsigned int __u32;
typedef unsigned long long __u64;

struct bpf_dynptr { __u64 __opaque[2]; } __attribute__((aligned(8)));
struct task_struct;

static long (*bpf_send_signal)(__u32 sig) = (void *)109;
static long (*bpf_send_signal_thread)(__u32 sig) = (void *)117;
static struct task_struct *(*bpf_get_current_task_btf)(void) = (void *)158;
static long (*bpf_find_vma)(struct task_struct *, __u64, void *, void *, __u64) = (void *)180;
static long (*bpf_ringbuf_reserve_dynptr)(void *, __u32, __u64, struct bpf_dynptr *) = (void *)198;
static void (*bpf_ringbuf_submit_dynptr)(struct bpf_dynptr *, __u64) = (void *)199;
static void (*bpf_ringbuf_discard_dynptr)(struct bpf_dynptr *, __u64) = (void *)200;
static long (*bpf_dynptr_from_mem)(void *, __u32, __u64, struct bpf_dynptr *) = (void *)197;
static long (*bpf_dynptr_read)(void *, __u32, const struct bpf_dynptr *, __u32, __u64) = (void *)201;
static long (*bpf_dynptr_write)(const struct bpf_dynptr *, __u32, void *, __u32, __u64) = (void *)202;
static void *(*bpf_dynptr_data)(const struct bpf_dynptr *, __u32, __u32) = (void *)203;
static long (*bpf_user_ringbuf_drain)(void *map, void *callback, void *ctx, __u64 flags) = (void *)209;

struct { __uint(type, 31); __uint(max_entries, 4096); } samples SEC(".maps");
struct { __uint(type, 27); __uint(max_entries, 4096); } ring SEC(".maps");
struct { __uint(type, 2); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64); } array SEC(".maps");

char LICENSE[] SEC("license") = "GPL";

long status[4];
__u64 sum, seen;
__u64 buffer[4];

struct context { __u64 add; };

static long add(struct bpf_dynptr *dynptr, struct context *context)
{
	__u64 value = 0, *direct;

	status[1] = bpf_dynptr_read(&value, 8, dynptr, 0, 0);
	direct = bpf_dynptr_data(dynptr, 8, 8);
	if (direct)
		value += *direct;
	sum += value + context->add;
	seen++;
	return value == 99;
}

static long nested(struct bpf_dynptr *dynptr, void *context)
{
	status[2] = bpf_user_ringbuf_drain(&samples, add, &(struct context){ 0 }, 0);
	return 0;
}

static long two(struct bpf_dynptr *dynptr, void *context)
{
	return 2;
}

static long writes_over(struct bpf_dynptr *dynptr, void *context)
{
	*(volatile __u64 *)dynptr = 1;
	return 0;
}

static long reads(struct bpf_dynptr *dynptr, void *context)
{
	sum = *(volatile __u64 *)dynptr;
	return 0;
}

static long submits(struct bpf_dynptr *dynptr, void *context)
{
	bpf_ringbuf_submit_dynptr(dynptr, 0);
	return 0;
}

static long makes(struct bpf_dynptr *dynptr, void *context)
{
	bpf_dynptr_from_mem(buffer, 32, 0, dynptr);
	return 0;
}

static long keeps(struct bpf_dynptr *dynptr, void **context)
{
	*context = bpf_dynptr_data(dynptr, 0, 8);
	return 0;
}

static long vma(struct task_struct *task, void *area, void *context)
{
	sum = 1;
	return 0;
}

static long vma_writes(struct task_struct *task, __u64 *area, void *context)
{
	*area = 1;
	return 0;
}

SEC("tp_btf/sys_enter")
int drain(__u64 *ctx)
{
	struct context context = { ctx[1] };

	status[0] = bpf_user_ringbuf_drain(&samples, add, &context, 0);
	return 0;
}

SEC("?raw_tp/sys_enter")
int drain_nested(__u64 *ctx)
{
	status[0] = bpf_user_ringbuf_drain(&samples, nested, 0, 0);
	status[1] = bpf_user_ringbuf_drain(&samples, nested, 0, 4);
	return 0;
}

SEC("?raw_tp/sys_enter")
int signals(__u64 *ctx)
{
	status[0] = bpf_send_signal(ctx[1]);
	status[1] = bpf_send_signal_thread(ctx[1]);
	return 0;
}

SEC("?tp_btf/sys_enter")
int find(__u64 *ctx)
{
	status[0] = bpf_find_vma(bpf_get_current_task_btf(), 0x1000, vma, 0, 0);
	status[1] = bpf_find_vma(bpf_get_current_task_btf(), 0x1000, vma, 0, 1);
	return 0;
}

#define REFUSED(name, body) SEC("?raw_tp/sys_enter") int name(__u64 *ctx) { body; return 0; }

REFUSED(returns_two, bpf_user_ringbuf_drain(&samples, two, 0, 0))
REFUSED(stores, bpf_user_ringbuf_drain(&samples, writes_over, 0, 0))
REFUSED(loads, bpf_user_ringbuf_drain(&samples, reads, 0, 0))
REFUSED(submits_it, bpf_user_ringbuf_drain(&samples, submits, 0, 0))
REFUSED(makes_it, bpf_user_ringbuf_drain(&samples, makes, 0, 0))
REFUSED(other_map, bpf_user_ringbuf_drain(&ring, add, 0, 0))
REFUSED(keeps_slice, void *slice = 0; bpf_user_ringbuf_drain(&samples, keeps, &slice, 0); sum = *(__u64 *)slice)
REFUSED(writes_vma, bpf_find_vma(bpf_get_current_task_btf(), 0, vma_writes, 0, 0))
REFUSED(vma_of_number, bpf_find_vma((void *)ctx[0], 0, vma, 0, 0))
