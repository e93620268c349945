// cc: -O2 -g -pthread
// Does what a tracer is told of. Arguments: shared objects to load first. An order is a word, how
// often, and perhaps a file; the answer is microseconds a piece:
//   threads N       begins a thread, which ends, and joins it
//   forks N         forks a child, which ends, and waits for it
//   signals N       sends itself a signal that it handles
//   modules N FILE  loads a shared object, and unloads it
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static void handle(int signal) { (void)signal; }

static void *ends(void *unused) { return unused; }

static int one(const char *what, const char *file) {
    if (strcmp(what, "threads") == 0) {
        pthread_t thread;
        return pthread_create(&thread, NULL, ends, NULL) == 0 && pthread_join(thread, NULL) == 0;
    }
    if (strcmp(what, "forks") == 0) {
        pid_t child = fork();
        if (child == 0) _exit(0);
        return waitpid(child, NULL, 0) == child;
    }
    if (strcmp(what, "signals") == 0) return raise(SIGUSR1) == 0;
    void *module = dlopen(file, RTLD_NOW);
    return module && dlclose(module) == 0;
}

int main(int argc, char **argv) {
    char line[4096], what[16], file[4000] = "";
    long count;
    signal(SIGUSR1, handle);
    for (int i = 1; i < argc; i++)
        if (!dlopen(argv[i], RTLD_NOW)) return 1;
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "%15s %ld %3999s", what, &count, file) < 2) return 2;
        double start = now();
        for (long i = 0; i < count; i++)
            if (!one(what, file)) return 3;
        printf("%f\n", (now() - start) / count);
        fflush(stdout);
    }
    return 0;
}
