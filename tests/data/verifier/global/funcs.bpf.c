/* Global functions and calls of them. A program's verdict is in the comment above its SEC: `expect: ERRNO last line`, or nothing where
 * it is accepted. Verdicts and lines are those of Linux 6.18. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

#define __arg(tag) __attribute__((btf_decl_tag("arg:" #tag)))

#define use(x) asm volatile("" : "+r"(x))

char LICENSE[] SEC("license") = "GPL";

struct pair {
	__u64 a, b;
};

__u64 number;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u64);
	__type(value, struct pair);
} pairs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u32);
} progs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring SEC(".maps");

/* scalars */

__weak __noinline int add(int a, long b)
{
	return a + b;
}

SEC("raw_tp/a")
int scalars(__u64 *ctx)
{
	return add(ctx[0], ctx[1]);
}

__weak __noinline int scalars_of_all_kinds(char a, unsigned short b, bool c, enum pid_type d, __u64 e)
{
	return a + b + c + d + e;
}

SEC("raw_tp/a")
int every_scalar(__u64 *ctx)
{
	return scalars_of_all_kinds(ctx[0], ctx[1], ctx[2], ctx[3], ctx[4]);
}

/* expect: EINVAL Caller passes invalid args into func#1 ('add') */
/* says: R2 is not a scalar */
SEC("raw_tp/a")
int pointer_for_a_scalar(__u64 *ctx)
{
	return add(1, (long)ctx);
}

__weak __noinline int index_of(__u32 i)
{
	__u64 key = 0;
	struct pair *value = bpf_map_lookup_elem(&pairs, &key);

	return value ? ((char *)value)[i & 31] : 0;
}

/* The caller's bound does not count. */
/* expect: EACCES R0 max value is outside of the allowed memory range */
SEC("raw_tp/a")
int bound_in_the_caller(__u64 *ctx)
{
	return index_of(3);
}

__weak __noinline int seven(void)
{
	return 7;
}

/* What comes back is any number. */
/* expect: EACCES R7 unbounded memory access, make sure to bounds check any such access */
SEC("raw_tp/a")
int result_is_unknown(__u64 *ctx)
{
	__u64 key = 0;
	struct pair *value = bpf_map_lookup_elem(&pairs, &key);
	__u64 at;

	if (!value)
		return 0;
	at = (__u32)seven();
	use(at);
	return *((char *)value + at);
}

/* memory */

__weak __noinline int sum(struct pair *pair)
{
	return pair ? pair->a + pair->b : 0;
}

__weak __noinline int sum_unchecked(struct pair *pair)
{
	use(pair);
	return pair->a;
}

__weak __noinline int sum_nonnull(struct pair *pair __arg(nonnull))
{
	return pair->a + pair->b;
}

__weak __noinline int past_the_end(struct pair *pair __arg(nonnull))
{
	return *((__u64 *)pair + 2);
}

SEC("raw_tp/a")
int stack_memory(__u64 *ctx)
{
	struct pair pair = {1, 2};

	return sum(&pair) + sum_nonnull(&pair);
}

SEC("raw_tp/a")
int null_memory(__u64 *ctx)
{
	return sum(0);
}

/* expect: EINVAL Caller passes invalid args into func#1 ('sum_nonnull') */
/* says: arg#0 is expected to be non-NULL */
/* differs: accepted by Linux, where the function then reads at 0 */
SEC("raw_tp/a")
int null_for_nonnull(__u64 *ctx)
{
	return sum_nonnull(0);
}

SEC("raw_tp/a")
int value_that_may_be_null(__u64 *ctx)
{
	__u64 key = 0;

	return sum(bpf_map_lookup_elem(&pairs, &key));
}

/* expect: EINVAL Caller passes invalid args into func#1 ('sum_nonnull') */
/* says: arg#0 is expected to be non-NULL */
SEC("raw_tp/a")
int value_that_may_be_null_for_nonnull(__u64 *ctx)
{
	__u64 key = 0;

	return sum_nonnull(bpf_map_lookup_elem(&pairs, &key));
}

/* expect: EACCES R1 invalid mem access 'mem_or_null' */
SEC("raw_tp/a")
int null_check_in_the_function(__u64 *ctx)
{
	struct pair pair = {1, 2};

	return sum_unchecked(&pair);
}

/* expect: EACCES R1 min value is outside of the allowed memory range */
SEC("raw_tp/a")
int behind_the_memory(__u64 *ctx)
{
	struct pair pair = {1, 2};

	return past_the_end(&pair);
}

/* expect: EINVAL Caller passes invalid args into func#1 ('sum') */
/* says: invalid read from stack R1 off=-8 size=16 */
SEC("raw_tp/a")
int memory_too_short(__u64 *ctx)
{
	__u64 one = 1;

	return sum((struct pair *)&one);
}

SEC("raw_tp/a")
int uninitialised_stack(__u64 *ctx)
{
	struct pair pair;

	use(ctx);
	asm volatile("" : "=m"(pair));
	return sum(&pair);
}

/* expect: EINVAL Caller passes invalid args into func#1 ('sum') */
/* says: R1 type=scalar expected=fp */
SEC("raw_tp/a")
int number_for_memory(__u64 *ctx)
{
	return sum((struct pair *)ctx[0]);
}

/* expect: EINVAL Caller passes invalid args into func#1 ('sum') */
/* says: invalid bpf_context access off=15 size=1 */
SEC("raw_tp/a")
int ctx_for_memory(__u64 *ctx)
{
	return sum((struct pair *)ctx);
}

SEC("raw_tp/a")
int record_memory(__u64 *ctx)
{
	struct pair *record = bpf_ringbuf_reserve(&ring, sizeof(*record), 0);
	int result;

	if (!record)
		return 0;
	record->a = record->b = 1;
	result = sum(record);
	bpf_ringbuf_submit(record, 0);
	return result;
}

__weak __noinline int void_argument(void *p)
{
	use(p);
	return p != 0;
}

/* expect: EINVAL Caller passes invalid args into func#1 ('void_argument') */
/* says: arg#0 reference type('UNKNOWN ') size cannot be determined: -22 */
SEC("raw_tp/a")
int size_unknown(__u64 *ctx)
{
	return void_argument(ctx);
}

struct opaque;

__weak __noinline int opaque_argument(struct opaque *p)
{
	use(p);
	return p != 0;
}

/* expect: EINVAL Caller passes invalid args into func#1 ('opaque_argument') */
/* says: arg#0 reference type('FWD opaque') size cannot be determined: -22 */
SEC("raw_tp/a")
int forward_declared(__u64 *ctx)
{
	return opaque_argument((struct opaque *)ctx);
}

__weak __noinline int write_to(__u64 *p)
{
	if (p)
		*p = 9;
	return 0;
}

SEC("raw_tp/a")
int written_in_the_function(__u64 *ctx)
{
	__u64 key = 0, x = 1;
	struct pair *value;

	write_to(&x);
	value = bpf_map_lookup_elem(&pairs, &key);
	if (value)
		write_to(&value->b);
	return x;
}

/* What the function may have written is no longer known. */
/* expect: EACCES R7 unbounded memory access, make sure to bounds check any such access */
SEC("raw_tp/a")
int stack_after_the_call(__u64 *ctx)
{
	__u64 key = 0, x = 1;
	struct pair *value = bpf_map_lookup_elem(&pairs, &key);

	if (!value)
		return 0;
	write_to(&x);
	x &= 0xffffffff;
	return *((char *)value + x);
}

__weak __noinline int nullable_memory(struct pair *pair __arg(nullable))
{
	use(pair);
	return pair != 0;
}

/* expect: EINVAL Caller passes invalid args into func#1 ('nullable_memory') */
/* says: arg#0 has invalid combination of tags */
SEC("raw_tp/a")
int nullable_without_trusted(__u64 *ctx)
{
	return nullable_memory(0);
}

/* context */

__weak __noinline int by_tag(void *ctx __arg(ctx))
{
	return ((__u64 *)ctx)[1];
}

__weak __noinline int by_u64(__u64 *ctx __arg(ctx))
{
	return ctx[1];
}

__weak __noinline int by_struct(struct bpf_raw_tracepoint_args *ctx)
{
	return ctx->args[2];
}

SEC("raw_tp/a")
int context(__u64 *ctx)
{
	return by_tag(ctx) + by_u64(ctx) + by_struct((struct bpf_raw_tracepoint_args *)ctx);
}

/* expect: EINVAL Caller passes invalid args into func#1 ('by_tag') */
/* says: arg#0 expects pointer to ctx */
SEC("raw_tp/a")
int stack_for_ctx(__u64 *ctx)
{
	__u64 args[12] = {};

	return by_tag(args);
}

/* expect: EACCES Caller passes invalid args into func#1 ('by_tag') */
/* says: dereference of modified ctx ptr R1 off=8 disallowed */
SEC("raw_tp/a")
int modified_ctx(__u64 *ctx)
{
	return by_tag(ctx + 1);
}

__weak __noinline int by_other_struct(struct pair *ctx __arg(ctx))
{
	return ctx->a;
}

/* expect: EINVAL Caller passes invalid args into func#1 ('by_other_struct') */
/* says: arg#0 should be `struct bpf_raw_tracepoint_args *` */
SEC("raw_tp/a")
int ctx_of_another_struct(__u64 *ctx)
{
	return by_other_struct((struct pair *)ctx);
}

__weak __noinline int by_tagged_struct(struct bpf_raw_tracepoint_args *ctx __arg(ctx))
{
	return ctx->args[0];
}

struct nothing {};

__weak __noinline int by_no_struct(struct nothing *nothing)
{
	return !nothing;
}

__weak __noinline int by_record(struct pair *ctx __arg(ctx))
{
	return ctx->b;
}

/* A classic tracepoint's record has no type of its own: any will do. */
SEC("tracepoint/sched/sched_switch")
int ctx_of_any_struct(__u64 *ctx)
{
	return by_record((struct pair *)ctx);
}

/* expect: EACCES Caller passes invalid args into func#1 ('by_record') */
/* says: dereference of modified ctx ptr R1 off=8 disallowed */
SEC("tracepoint/sched/sched_switch")
int modified_ctx_of_any_struct(__u64 *ctx)
{
	return by_record((struct pair *)(ctx + 1));
}

union raw_tracepoint {
	__u64 a;
	__u32 b;
};

__weak __noinline int by_union(union raw_tracepoint *ctx __arg(ctx))
{
	return ctx->a;
}

/* expect: EINVAL Caller passes invalid args into func#1 ('by_union') */
/* says: arg#0 should be void pointer */
SEC("tp_btf/sched_switch")
int ctx_of_a_union(__u64 *ctx)
{
	return by_union((union raw_tracepoint *)ctx);
}

SEC("tp_btf/sched_switch")
int ctx_of_the_raw_struct(__u64 *ctx)
{
	return by_tagged_struct((struct bpf_raw_tracepoint_args *)ctx);
}

/* Nothing is read through a pointer to nothing. */
SEC("tp_btf/sched_switch")
int ctx_for_memory_of_no_size(__u64 *ctx)
{
	return by_no_struct((struct nothing *)ctx);
}

__weak __noinline int by_two_tags(void *ctx __arg(ctx) __arg(nonnull))
{
	return 0;
}

/* expect: EINVAL Caller passes invalid args into func#1 ('by_two_tags') */
/* says: arg#0 has invalid combination of tags */
SEC("raw_tp/a")
int ctx_with_another_tag(__u64 *ctx)
{
	return by_two_tags(ctx);
}

__weak __noinline int ctx_past_arguments(void *ctx __arg(ctx))
{
	return ((__u64 *)ctx)[12];
}

/* expect: EACCES invalid bpf_context access off=96 size=8 */
SEC("raw_tp/a")
int ctx_offset_in_the_function(__u64 *ctx)
{
	return ctx_past_arguments(ctx);
}

/* prototypes */

__weak __noinline int unknown_tag(int *p __arg(strange))
{
	use(p);
	return p != 0;
}

/* expect: ENOTSUP Caller passes invalid args into func#1 ('unknown_tag') */
/* says: arg#0 has unsupported set of tags */
SEC("raw_tp/a")
int strange_tag(__u64 *ctx)
{
	return unknown_tag(0);
}

__weak __noinline int tagged_number(int x __arg(nonnull))
{
	return x;
}

/* expect: EINVAL Caller passes invalid args into func#1 ('tagged_number') */
/* says: arg#0 has pointer tag, but is not a pointer type */
SEC("raw_tp/a")
int tag_of_a_number(__u64 *ctx)
{
	return tagged_number(1);
}

__weak __noinline void nothing(int x)
{
	use(x);
}

/* expect: EINVAL Caller passes invalid args into func#1 ('nothing') */
/* says: Global function nothing() doesn't return scalar. Only those are supported. */
SEC("raw_tp/a")
int no_result(__u64 *ctx)
{
	nothing(1);
	return 0;
}

__weak __noinline struct pair *a_pointer(struct pair *pair)
{
	return pair;
}

/* expect: EINVAL Caller passes invalid args into func#1 ('a_pointer') */
/* says: Global function a_pointer() doesn't return scalar. Only those are supported. */
SEC("raw_tp/a")
int pointer_result(__u64 *ctx)
{
	struct pair pair = {};

	return a_pointer(&pair) != 0;
}

__weak __noinline long returns_a_pointer(long x)
{
	long result;

	asm volatile("%0 = r10" : "=r"(result));
	return result;
}

/* expect: EINVAL At subprogram exit the register R0 is not a scalar value (fp) */
SEC("raw_tp/a")
int pointer_at_exit(__u64 *ctx)
{
	return returns_a_pointer(1);
}

/* reachability */

__weak __noinline int never_called_and_wrong(__u64 *p)
{
	use(p);
	return *p;
}

SEC("raw_tp/a")
int only_what_is_reached(__u64 *ctx)
{
	asm goto("r0 = 1; if r0 == 1 goto %l[out]" : : : "r0" : out);
	return never_called_and_wrong((void *)0);
out:
	return 0;
}

/* expect: EACCES R1 invalid mem access 'mem_or_null' */
SEC("raw_tp/a")
int what_is_reached(__u64 *ctx)
{
	if (ctx[0] == 1)
		return sum_unchecked((void *)0);
	return 0;
}

__weak __noinline int inner(struct pair *pair)
{
	use(pair);
	return pair->a;
}

__weak __noinline int outer(int x)
{
	return x ? inner(0) : 1;
}

/* expect: EACCES R1 invalid mem access 'mem_or_null' */
SEC("raw_tp/a")
int through_another(__u64 *ctx)
{
	return outer(ctx[0]);
}

static __noinline int local(struct pair *pair)
{
	use(pair);
	return pair->a;
}

__weak __noinline int calls_local(int x)
{
	struct pair pair = {x, x};

	return local(&pair);
}

SEC("raw_tp/a")
int static_from_global(__u64 *ctx)
{
	return calls_local(ctx[0]);
}

/* recursion and stack */

__weak __noinline int recursive(int x)
{
	if (x <= 0)
		return 0;
	x = recursive(x - 1);
	use(x);
	return x + 1;
}

/* expect: E2BIG the call stack of 8 frames is too deep ! */
SEC("raw_tp/a")
int recursion(__u64 *ctx)
{
	return recursive(ctx[0]);
}

__weak __noinline int with_tail_call(__u64 *ctx __arg(ctx))
{
	bpf_tail_call(ctx, &progs, 1);
	return 1;
}

SEC("raw_tp/a")
int tail_call_below(__u64 *ctx)
{
	return with_tail_call(ctx);
}

/* expect: EACCES tail_calls are not allowed when call stack of previous frames is 272 bytes. Too large */
SEC("raw_tp/a")
int tail_call_below_a_large_frame(__u64 *ctx)
{
	volatile char buf[264] = {};

	return with_tail_call(ctx) + buf[ctx[0] & 255];
}

__weak __noinline int large_frame(int x)
{
	volatile char buf[400];

	buf[x & 255] = x;
	buf[0] = 1;
	return buf[0];
}

SEC("raw_tp/a")
int stack_of_the_chain(__u64 *ctx)
{
	volatile char buf[400];

	buf[0] = 1;
	return large_frame(ctx[0]) + buf[0];
}

SEC("raw_tp.w/a")
int stack_of_the_chain_writable(__u64 *ctx)
{
	volatile char buf[400];

	buf[0] = 1;
	return large_frame(ctx[1]) + buf[0];
}

/* callbacks */

__weak __noinline long global_callback(__u32 index, void *ctx)
{
	return 0;
}

/* expect: EINVAL callback function not static */
SEC("raw_tp/a")
int callback(__u64 *ctx)
{
	return bpf_loop(4, global_callback, 0, 0);
}

__weak __noinline int leaks(__u64 x)
{
	void *record = bpf_ringbuf_reserve(&ring, 8, 0);

	if (!record)
		return 0;
	asm volatile("" : : "r"(record));
	return 1;
}

/* expect: EINVAL BPF_EXIT instruction in main prog would lead to reference leak */
SEC("raw_tp/a")
int leak_in_the_function(__u64 *ctx)
{
	return leaks(1);
}

/* kernel types */

__weak __noinline int trusted(struct task_struct *task __arg(trusted))
{
	return task->pid;
}

__weak __noinline int trusted_nullable(struct task_struct *task __arg(trusted) __arg(nullable))
{
	return task ? task->pid : 0;
}

__weak __noinline int trusted_nullable_unchecked(struct task_struct *task __arg(trusted) __arg(nullable))
{
	return task->pid;
}

__weak __noinline int untrusted(struct task_struct *task __arg(untrusted))
{
	return task->pid;
}

__weak __noinline int untrusted_number(__u64 *p __arg(untrusted))
{
	return *p;
}

SEC("tp_btf/sched_switch")
int trusted_argument(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[1];

	return trusted(task) + trusted_nullable(task) + trusted_nullable(0);
}

/* expect: EACCES R1 invalid mem access 'trusted_ptr_or_null_' */
SEC("tp_btf/sched_switch")
int trusted_argument_unchecked(__u64 *ctx)
{
	return trusted_nullable_unchecked((void *)ctx[1]);
}

/* expect: EACCES Caller passes invalid args into func#1 ('trusted') */
/* says: R1 type=scalar expected=ptr_, trusted_ptr_, rcu_ptr_ */
SEC("tp_btf/sched_switch")
int number_for_trusted(__u64 *ctx)
{
	return trusted((void *)ctx[0]);
}

/* expect: EACCES Caller passes invalid args into func#1 ('trusted') */
/* says: R1 type=scalar expected=ptr_, trusted_ptr_, rcu_ptr_ */
SEC("raw_tp/a")
int null_for_trusted(__u64 *ctx)
{
	return trusted(0);
}

SEC("raw_tp/a")
int anything_for_untrusted(__u64 *ctx)
{
	return untrusted((void *)ctx[0]) + untrusted_number((void *)ctx) + untrusted((void *)&pairs);
}

__weak __noinline int untrusted_write(struct task_struct *task __arg(untrusted))
{
	task->pid = 1;
	return 0;
}

/* expect: EACCES only read is supported */
SEC("raw_tp/a")
int write_through_untrusted(__u64 *ctx)
{
	return untrusted_write((void *)ctx[0]);
}

__weak __noinline int untrusted_number_write(__u64 *p __arg(untrusted))
{
	*p = 1;
	return 0;
}

/* expect: EACCES R1 cannot write into rdonly_untrusted_mem */
SEC("raw_tp/a")
int write_through_untrusted_number(__u64 *ctx)
{
	return untrusted_number_write((void *)ctx[0]);
}

__weak __noinline int untrusted_tagged(struct task_struct *task __arg(untrusted) __arg(nullable))
{
	return 0;
}

/* expect: EINVAL Caller passes invalid args into func#1 ('untrusted_tagged') */
/* says: arg#0 untrusted cannot be combined with any other tags */
SEC("raw_tp/a")
int untrusted_with_another_tag(__u64 *ctx)
{
	return untrusted_tagged(0);
}

struct no_such_struct_in_the_kernel {
	int x;
};

__weak __noinline int trusted_unknown(struct no_such_struct_in_the_kernel *p __arg(trusted))
{
	return 0;
}

/* expect: ENOENT Caller passes invalid args into func#1 ('trusted_unknown') */
/* says: arg#0 reference type('STRUCT no_such_struct_in_the_kernel') has no matches */
SEC("raw_tp/a")
int trusted_of_an_unknown_type(__u64 *ctx)
{
	return trusted_unknown(0);
}

__weak __noinline int trusted_nonnull(struct task_struct *p __arg(trusted) __arg(nonnull))
{
	return 0;
}

/* expect: EINVAL Caller passes invalid args into func#1 ('trusted_nonnull') */
/* says: arg#0 has invalid combination of tags */
SEC("raw_tp/a")
int trusted_and_nonnull(__u64 *ctx)
{
	return trusted_nonnull(0);
}

__weak __noinline int by_struct_value(struct pair *pair __arg(arena) __arg(nonnull))
{
	use(pair);
	return 0;
}

/* expect: EINVAL Caller passes invalid args into func#1 ('by_struct_value') */
/* says: arg#0 arena cannot be combined with any other tags */
SEC("raw_tp/a")
int arena_with_another_tag(__u64 *ctx)
{
	return by_struct_value(0);
}

__weak __noinline int float_argument(float *x __arg(untrusted))
{
	use(x);
	return 0;
}

/* expect: ENOENT Caller passes invalid args into func#1 ('float_argument') */
/* says: arg#0 reference type('FLOAT float') has no matches */
SEC("raw_tp/a")
int untrusted_float(__u64 *ctx)
{
	return float_argument(0);
}

union number_or_bytes {
	__u64 number;
	char bytes[8];
};

__weak __noinline int tagged_dynptr(struct bpf_dynptr *ptr __arg(nonnull))
{
	use(ptr);
	return 0;
}

/* expect: EINVAL Caller passes invalid args into func#1 ('tagged_dynptr') */
/* says: arg#0 has invalid combination of tags */
SEC("raw_tp/a")
int dynptr_with_a_tag(__u64 *ctx)
{
	return tagged_dynptr(0);
}

__weak __noinline int anonymous_ctx(struct { int x; } *ctx __arg(ctx))
{
	use(ctx);
	return 0;
}

/* expect: EINVAL Caller passes invalid args into func#1 ('anonymous_ctx') */
/* says: arg#0 type doesn't have a name */
SEC("raw_tp/a")
int ctx_without_a_name(__u64 *ctx)
{
	return anonymous_ctx((void *)ctx);
}

/* expect: EINVAL Caller passes invalid args into func#1 ('by_other_struct') */
/* says: arg#0 should be void pointer */
SEC("tp_btf/sched_switch")
int ctx_of_a_struct_in_tp_btf(__u64 *ctx)
{
	return by_other_struct((struct pair *)ctx);
}

/* expect: EACCES Caller passes invalid args into func#1 ('trusted') */
/* says: R1 is of type request but task_struct is expected */
SEC("tp_btf/block_rq_issue")
int another_struct_for_trusted(__u64 *ctx)
{
	return trusted((void *)ctx[0]);
}

__weak __noinline int sleeps(__u64 x)
{
	char c = 0;

	bpf_copy_from_user(&c, 1, (void *)x);
	return c;
}

/* expect: EINVAL a non-sleepable BPF program context */
/* says: i.e., in a RCU/IRQ/preempt-disabled section, or in */
SEC("raw_tp/a")
int might_sleep(__u64 *ctx)
{
	return sleeps(1);
}

/* dynptrs */

__weak __noinline int first_of(struct bpf_dynptr *ptr)
{
	__u64 value = 0;

	bpf_dynptr_read(&value, sizeof(value), ptr, 0, 0);
	return value;
}

SEC("raw_tp/a")
int dynptr(__u64 *ctx)
{
	struct bpf_dynptr ptr;

	number = 41;
	bpf_dynptr_from_mem(&number, sizeof(number), 0, &ptr);
	return first_of(&ptr) + 1;
}

/* expect: EINVAL Caller passes invalid args into func#1 ('first_of') */
/* says: Expected an initialized dynptr as arg #0 */
SEC("raw_tp/a")
int stack_for_dynptr(__u64 *ctx)
{
	__u64 pair[2] = {};

	return first_of((struct bpf_dynptr *)pair);
}

/* expect: EINVAL Caller passes invalid args into func#1 ('first_of') */
/* says: arg#0 expected pointer to stack or const struct bpf_dynptr */
SEC("raw_tp/a")
int value_for_dynptr(__u64 *ctx)
{
	return first_of((struct bpf_dynptr *)&number);
}

__weak __noinline int keeps(struct bpf_dynptr *ptr)
{
	bpf_dynptr_from_mem(&number, sizeof(number), 0, ptr);
	return 0;
}

/* expect: EINVAL Dynptr has to be an uninitialized dynptr */
SEC("raw_tp/a")
int dynptr_made_in_the_function(__u64 *ctx)
{
	struct bpf_dynptr ptr;

	bpf_dynptr_from_mem(&number, sizeof(number), 0, &ptr);
	return keeps(&ptr);
}

__weak __noinline int reads_anonymous(struct { int x; } *p __arg(trusted))
{
	use(p);
	return 0;
}

/* expect: EINVAL Caller passes invalid args into func#1 ('reads_anonymous') */
/* says: arg#0 reference type('STRUCT (anon)') candidate matching error: -22 */
SEC("raw_tp/a")
int trusted_without_a_name(__u64 *ctx)
{
	return reads_anonymous(0);
}

/* The zero of one path passes for a pointer; the other path comes by with whatever the event had. */
/* expect: EINVAL Caller passes invalid args into func#1 ('sum') */
/* says: R1 type=scalar expected=fp */
/* differs: Linux takes the second path for one that it has seen, as nothing needs the exact zero */
SEC("raw_tp/a")
int zero_or_any_number(__u64 *ctx)
{
	struct pair *pair;

	/* long enough for a state to be kept where the paths meet */
	asm volatile("%0 = *(u64 *)(%1 + 8)\n"
		     "%1 = *(u64 *)(%1 + 0)\n"
		     "if %1 == 1 goto +0\n"
		     "if %1 > 5 goto +8\n"
		     "r0 = 1\nr0 = 2\nr0 = 3\nr0 = 4\nr0 = 5\nr0 = 6\nr0 = 7\n"
		     "%0 = 0\n"
		     : "=&r"(pair), "+r"(ctx)
		     :
		     : "r0");
	return sum(pair);
}

/* what the kernel takes and this verifier refuses by name */

__weak __noinline int in_arena(int *p __arg(arena))
{
	use(p);
	return p != 0;
}

/* expect: ENOTSUP Caller passes invalid args into func#1 ('in_arena') */
/* says: arg#0 is a pointer into an arena: those are not implemented yet */
/* differs: there are no arenas here */
SEC("raw_tp/a")
int arena(__u64 *ctx)
{
	return in_arena(0);
}

static __noinline int on_exception(__u64 cookie)
{
	return 0;
}

/* expect: ENOTSUP exception callback on_exception() of exceptions(): exceptions are not implemented yet */
/* differs: there are no exceptions here */
__attribute__((btf_decl_tag("exception_callback:on_exception")))
SEC("raw_tp/a")
int exceptions(__u64 *ctx)
{
	return 0;
}
