/* memcheck MIB [MICROSECONDS]: writes MIB of memory again and again. Each 64-byte line of a page holds how often the page was
   written, and is checked before the next write: memory that a migration damages shows as MEMBAD. */
#include <stdio.h>
#include <stdlib.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>
int main(int c, char **v) {
  long mib = c > 1 ? atol(v[1]) : 8, n = mib * 256; int us = c > 2 ? atoi(v[2]) : 0;
  volatile uint64_t *p = mmap(0, n * 4096, 3, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0);
  uint64_t round = 0, bad = 0; unsigned x = 12345;
  uint32_t *cnt = calloc(n, 4);           /* how often page i was written: the expected value */
  for (long i = 0; i < n; i++) for (int l = 0; l < 512; l += 8) p[i*512+l] = 0;
  for (;; round++) {
    for (long k = 0; k < n; k++) {
      x = x * 1103515245u + 12345u;
      long i = (x >> 8) % n;
      for (int l = 0; l < 512; l += 8) if (p[i*512+l] != cnt[i]) { if (bad++ < 20) printf("MEMBAD page %ld line %d is %lu should be %u\n", i, l/8, (unsigned long)p[i*512+l], cnt[i]); p[i*512+l] = cnt[i]; }
      cnt[i]++;
      for (int l = 0; l < 512; l += 8) p[i*512+l] = cnt[i];
      if (us) usleep(us);
    }
    if (round % 20 == 0) { printf("MEMCHECK round %lu bad %lu\n", (unsigned long)round, (unsigned long)bad); fflush(stdout); }
  }
}
