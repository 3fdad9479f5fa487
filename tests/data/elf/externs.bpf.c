/* Symbols that a kernel would supply. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

extern const int init_task __ksym;
extern const int no_such_symbol __ksym __weak;
extern void bpf_rcu_read_lock(void) __ksym;
extern void bpf_rcu_read_unlock(void) __ksym __weak;
extern int CONFIG_HZ __kconfig;
extern int CONFIG_NR_CPUS __kconfig __weak;

SEC("raw_tp/a") int strong_ksym(void *ctx) { return (long)&init_task; }
SEC("raw_tp/b") int weak_ksym(void *ctx) { return &no_such_symbol ? 1 : 2; }
SEC("raw_tp/c") int strong_kfunc(void *ctx) { bpf_rcu_read_lock(); return 0; }
SEC("raw_tp/d") int weak_kfunc(void *ctx) { if (bpf_rcu_read_unlock) bpf_rcu_read_unlock(); return 0; }
SEC("raw_tp/e") int strong_option(void *ctx) { return CONFIG_HZ; }
SEC("raw_tp/f") int weak_option(void *ctx) { return CONFIG_NR_CPUS; }
