/* Kernel functions under other names, with other prototypes, and such as are not there (test_kernel_externs.py). */
#define SEC(name) __attribute__((section(name), used))
#define __ksym __attribute__((section(".ksyms")))
#define __weak __attribute__((weak))

char LICENSE[] SEC("license") = "GPL";

extern void bpf_rcu_read_lock___v1(void) __ksym __weak;
extern void bpf_rcu_read_unlock___other(void) __ksym;
extern void bpf_rcu_read_lock___bad(int flags) __ksym __weak;
extern int bpf_no_such_function(int x) __ksym __weak;
extern void bpf_rcu_read_lock___strong(int flags) __ksym;

SEC("raw_tp/sys_enter") int flavour(void *ctx)
{
	bpf_rcu_read_lock___v1();
	bpf_rcu_read_unlock___other();
	return 7;
}

SEC("raw_tp/sys_enter") int which(void *ctx)
{
	return (bpf_rcu_read_lock___v1 ? 1 : 0) | (bpf_rcu_read_lock___bad ? 2 : 0) | (bpf_no_such_function ? 4 : 0);
}

SEC("?raw_tp/sys_enter") int unguarded(void *ctx) { return bpf_no_such_function(1); }
SEC("?raw_tp/sys_enter") int misdeclared(void *ctx) { bpf_rcu_read_lock___strong(1); return 0; }
