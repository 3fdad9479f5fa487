/* Scans over text: lengths, comparison, numbers, searching. */
#include "bench.h"

ENTRY(count_lines)
{
	const char *text = mem;
	u64 lines = 0, longest = 0, start = 0;

	for (u64 i = 0; i < len; i++) {
		if (text[i] != '\n')
			continue;
		if (i - start > longest)
			longest = i - start;
		start = i + 1;
		lines++;
	}
	return (lines << 32) | longest;
}

ENTRY(parse_numbers)
{
	const u8 *text = mem;
	u64 sum = 0, number = 0;

	for (u64 i = 0; i < len; i++) {
		u32 digit = text[i] - '0';

		if (digit < 10) {
			number = number * 10 + digit;
		} else {
			sum += number;
			number = 0;
		}
	}
	return sum + number;
}

INLINE int same_word(const u8 *a, const u8 *b, u64 size)
{
	for (u64 i = 0; i < size; i++) {
		if (a[i] != b[i])
			return 0;
		if (!a[i])
			return 1;
	}
	return 1;
}

/* A 16-byte comm against each 16-byte field in memory. */
ENTRY(compare_comm)
{
	const u8 *p = mem;
	u8 comm[16] = "sshd";
	u64 hits = 0;

	for (u64 i = 0; i + 16 <= len; i += 16) {
		comm[0] = p[i];
		hits += same_word(comm, p + i, 16);
	}
	return hits;
}

ENTRY(find_pattern)
{
	const u8 *p = mem;
	u64 hits = 0;

	for (u64 i = 0; i + 4 <= len; i++)
		if (p[i] == 'e' && p[i + 1] == 'a' && (p[i + 2] | 0x20) == 'c' && p[i + 3] > 'a')
			hits += i;
	return hits;
}

ENTRY(to_upper)
{
	u8 *p = mem;
	u64 half = len / 2, last = 0;

	for (u64 i = 0; i < half; i++) {
		u8 c = p[i];

		last = c - ((u8)(c - 'a') < 26 ? 32 : 0);
		p[half + i] = last;
	}
	return last;
}

ENTRY(varint)
{
	const u8 *p = mem;
	u64 sum = 0, at = 0;

	while (at + 10 <= len) {
		u64 value = 0;

		for (u32 shift = 0; shift < 63; shift += 7) {
			u8 byte = p[at++];

			value |= (u64)(byte & 127) << shift;
			if (!(byte & 128))
				break;
		}
		sum += value;
	}
	return sum;
}
