// cc: -O2 -g -pthread -fomit-frame-pointer
// Allocates and frees at 50 call sites, 16 frames deep, 1000 blocks live, sizes 16 to 512. For each number
// on standard input: makes so many malloc/free pairs and prints the nanoseconds a pair, by the clock and of the
// thread's own processor time. Argument: threads (the others run all the time).
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define LIVE 1000
#define DEPTH 14

static __attribute__((noinline)) void *site(unsigned which, size_t size) {
#define SITE(n) case n: { void *volatile p = malloc(size + n - n); return p; }
#define TEN(n) SITE(n) SITE(n + 1) SITE(n + 2) SITE(n + 3) SITE(n + 4) \
    SITE(n + 5) SITE(n + 6) SITE(n + 7) SITE(n + 8) SITE(n + 9)
    switch (which) { TEN(0) TEN(10) TEN(20) TEN(30) TEN(40) }
    return NULL;
}

static __attribute__((noinline)) void *deep(int depth, unsigned which, size_t size) {
    volatile char pad[48];
    pad[0] = (char)depth;
    void *p = depth == 0 ? site(which, size) : deep(depth - 1, which, size);
    pad[1] = pad[0];
    return p;
}

static uint64_t now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void *churn(void *id) {
    void *live[LIVE] = {0};
    uint32_t x = 12345 + (uint32_t)(uintptr_t)id;
    for (;;) {
        long batch = 100000;
        if (!id && scanf("%ld", &batch) != 1)
            exit(0);
        uint64_t start = now(CLOCK_MONOTONIC), used = now(CLOCK_THREAD_CPUTIME_ID);
        for (long i = 0; i < batch; i++) {
            x ^= x << 13, x ^= x >> 17, x ^= x << 5;
            free(live[x % LIVE]);
            live[x % LIVE] = deep(DEPTH - 2, (x >> 10) % 50, 16 + (x >> 16) % 497);
        }
        if (!id) {
            used = now(CLOCK_THREAD_CPUTIME_ID) - used;
            printf("%.2f %.2f\n", (double)(now(CLOCK_MONOTONIC) - start) / (double)batch, (double)used / (double)batch);
            fflush(stdout);
        }
    }
    return NULL;
}

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    pthread_t t;
    for (int i = 1; i < threads; i++)
        pthread_create(&t, NULL, churn, (void *)(uintptr_t)i);
    churn(NULL);
}
