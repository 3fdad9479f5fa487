/* Global variables in every section that becomes a map, and kernel options. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";
__u32 VERSION SEC("version") = 0x60100;

const volatile int limit = 7;
const volatile struct { char name[8]; __u32 ids[2]; } settings = {"abc", {3, 4}};
int counter = 42;
static int hidden_counter = 43;
__u64 total;
static __u64 hidden_total;
int custom SEC(".data.custom") = 5;
const int custom_ro SEC(".rodata.custom") = 6;
__u32 custom_bss SEC(".bss.custom");

extern int LINUX_KERNEL_VERSION __kconfig;
extern bool CONFIG_PREEMPT __kconfig __weak;

SEC("raw_tp/sched_switch")
int count(void *ctx)
{
	static int calls;

	calls++;
	if (counter > limit && settings.ids[1] == 4)
		total += hidden_counter;
	hidden_total += custom + custom_ro;
	custom_bss++;
	hidden_counter++;
	counter++;
	return calls;
}

SEC("raw_tp/sched_wakeup")
int options(void *ctx)
{
	return LINUX_KERNEL_VERSION + CONFIG_PREEMPT;
}
