/* Loops by the number iterator, as bpf_for() of libbpf makes them. */
#define SEC(name) __attribute__((section(name), used))
#define __ksym __attribute__((section(".ksyms")))
#define __weak __attribute__((weak))
#define NULL ((void *)0)

typedef unsigned int __u32;
typedef unsigned long long __u64;

struct bpf_iter_num { __u64 __opaque[1]; } __attribute__((aligned(8)));

extern int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end) __weak __ksym;
extern int *bpf_iter_num_next(struct bpf_iter_num *it) __weak __ksym;
extern void bpf_iter_num_destroy(struct bpf_iter_num *it) __weak __ksym;
extern void bpf_rcu_read_lock(void) __ksym;
extern void bpf_rcu_read_unlock(void) __ksym;

#define bpf_for(i, start, end) for (									\
	struct bpf_iter_num ___it __attribute__((aligned(8), cleanup(bpf_iter_num_destroy))),		\
	*___p __attribute__((unused)) = (bpf_iter_num_new(&___it, (start), (end)),			\
					 (void)bpf_iter_num_destroy, (void *)0);			\
	({												\
		int *___t = bpf_iter_num_next(&___it);							\
		(___t ? ((i) = *___t, (i) >= (start) && (i) < (end)) : 0);				\
	});												\
)

char LICENSE[] SEC("license") = "GPL";

__u64 table[64];
__u64 sum;

SEC("raw_tp/sched_switch")
int loops(__u64 *ctx)
{
	int i, j, n = ctx[0] & 63;

	bpf_rcu_read_lock();
	bpf_for(i, 0, n)
		table[i & 63] = i * i;
	bpf_for(i, 0, 10) {
		bpf_for(j, 0, 1000) {
			if (j == 500)
				break;
			sum += 1;
		}
	}
	bpf_rcu_read_unlock();
	return n;
}
