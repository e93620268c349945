// cc: -O2 -g -pthread
// Looks from inside for how long it is stopped. Arguments: threads (all but the first one sleep), and shared objects to
// load. Orders on standard input, each answered by a line of figures in milliseconds:
//   spin      answers 0, and reads the clock until the next order
//   gaps      the sum of the stops since, the longest of them, the longest gap of any kind
//   blocks N  keeps N more blocks of 24 bytes: the longest call of malloc that the scheduler did not interrupt, the
//             longest of all
// A gap is a stop if the thread has been switched out otherwise than by preemption: nothing that it does blocks.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define GAP 10e-3

static double stopped, longest_stop, longest_gap;
static void *volatile last;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static double larger(double a, double b) { return a > b ? a : b; }

static int is_told(void) {
    struct pollfd input = {.fd = 0, .events = POLLIN};
    return poll(&input, 1, 0) != 0;
}

static void spin(void) {
    struct rusage before, after;
    double then = now();
    getrusage(RUSAGE_THREAD, &before);
    stopped = longest_stop = longest_gap = 0;
    printf("0\n");
    fflush(stdout);
    for (unsigned round = 1; round % 256 != 0 || !is_told(); round++) {
        double at = now(), gap = at - then;
        then = at;
        if (gap < GAP)
            continue;
        longest_gap = larger(longest_gap, gap);
        getrusage(RUSAGE_THREAD, &after);
        if (after.ru_nvcsw > before.ru_nvcsw) {
            stopped += gap;
            longest_stop = larger(longest_stop, gap);
        }
        before = after;
    }
}

static void keep(long count) {
    struct rusage before, after;
    double longest = 0, longest_of_all = 0;
    getrusage(RUSAGE_THREAD, &before);
    for (double then = now(); count > 0; count--) {
        void **block = malloc(24);
        *block = last;
        last = block;
        double at = now(), gap = at - then;
        then = at;
        if (gap < GAP)
            continue;
        longest_of_all = larger(longest_of_all, gap);
        getrusage(RUSAGE_THREAD, &after);
        if (after.ru_nivcsw == before.ru_nivcsw)
            longest = larger(longest, gap);
        before = after;
    }
    printf("%f %f\n", longest, longest_of_all);
}

static void *sleeper(void *unused) {
    for (;;)
        pause();
    return unused;
}

int main(int argc, char **argv) {
    pthread_t other;
    char line[64];
    for (int i = 2; i < argc; i++)
        if (!dlopen(argv[i], RTLD_NOW | RTLD_LOCAL))
            return fprintf(stderr, "%s\n", dlerror()), 1;
    for (int i = 1; i < atoi(argv[1]); i++)
        pthread_create(&other, NULL, sleeper, NULL);
    while (fgets(line, sizeof line, stdin)) {
        if (strcmp(line, "spin\n") == 0)
            spin();
        else if (strcmp(line, "gaps\n") == 0)
            printf("%f %f %f\n", stopped, longest_stop, longest_gap);
        else
            keep(atol(line + strlen("blocks ")));
        fflush(stdout);
    }
    return 0;
}
