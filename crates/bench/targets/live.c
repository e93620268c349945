// cc: -O2 -g -fno-builtin
// For each number on standard input: allocates more blocks, at 50 call sites, until so many live, and
// says so. Otherwise a thread runs all the time and notes its longest gap in nanoseconds, which is said, too.
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static volatile uint64_t longest;

static __attribute__((noinline)) void *site(unsigned which, size_t size) {
#define SITE(n) case n: { void *volatile p = malloc(size + n - n); return p; }
#define TEN(n) SITE(n) SITE(n + 1) SITE(n + 2) SITE(n + 3) SITE(n + 4) \
    SITE(n + 5) SITE(n + 6) SITE(n + 7) SITE(n + 8) SITE(n + 9)
    switch (which) { TEN(0) TEN(10) TEN(20) TEN(30) TEN(40) }
    return NULL;
}

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void *watch(void *unused) {
    for (uint64_t last = now();;) {
        uint64_t at = now();
        if (at - last > longest) longest = at - last;
        last = at;
    }
    return unused;
}

int main(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, watch, NULL);
    long live = 0;
    for (long wanted; scanf("%ld", &wanted) == 1;) {
        for (; live < wanted; live++) site(live * 7 % 50, 16 + live % 50);
        printf("%ld %llu\n", live, (unsigned long long)longest);
        longest = 0;
        fflush(stdout);
    }
}
