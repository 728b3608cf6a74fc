/* A machine that misbehaves when it is told to: the wall clock, the disk of a folder, and how long it syncs.

   It is preloaded into every process of a chaos test's ground. What it is told stands in the file $CHAOS_MACHINE, three
   64-bit integers: milliseconds that the wall clock is off, whether the disk below $CHAOS_DISK is full, milliseconds
   that a sync takes longer. What the stand-in for Claude Code keeps below $CHAOS_DISK/rehearsal is on another disk. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct told { int64_t clock_ms, is_full, sync_ms; };

static const struct told nothing;
static const volatile struct told *told = &nothing;

__attribute__((constructor)) static void listen_to(void) {
    const char *path = getenv("CHAOS_MACHINE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *shared = mmap(NULL, sizeof *told, PROT_READ, MAP_SHARED, file, 0);
    if (shared != MAP_FAILED) told = shared;
    close(file);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* -- the clock -- */

static void put_off(struct timespec *at) {
    int64_t off = told->clock_ms;
    at->tv_sec += off / 1000;
    at->tv_nsec += off % 1000 * 1000000;
    if (at->tv_nsec >= 1000000000) { at->tv_nsec -= 1000000000; at->tv_sec++; }
    if (at->tv_nsec < 0) { at->tv_nsec += 1000000000; at->tv_sec--; }
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    static __typeof__(&clock_gettime) real;
    if (!real) real = REAL(clock_gettime);
    int done = real(clock, at);
    if (!done && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) put_off(at);
    return done;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    (void)zone;
    struct timespec now;
    int done = clock_gettime(CLOCK_REALTIME, &now);
    if (!done) { at->tv_sec = now.tv_sec; at->tv_usec = now.tv_nsec / 1000; }
    return done;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}

/* -- the disk -- */

static int has_no_room(int file) {
    if (!told->is_full) return 0;
    const char *disk = getenv("CHAOS_DISK");
    char link[64], path[4096];
    struct stat about;
    if (!disk || fstat(file, &about) || !S_ISREG(about.st_mode)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    size_t above = strlen(disk);
    return !strncmp(path, disk, above) && path[above] == '/' && strncmp(path + above, "/rehearsal/", 11);
}

#define FULL(file) if (has_no_room(file)) { errno = ENOSPC; return -1; }

ssize_t write(int file, const void *bytes, size_t count) {
    static __typeof__(&write) real;
    if (!real) real = REAL(write);
    FULL(file)
    return real(file, bytes, count);
}

ssize_t pwrite(int file, const void *bytes, size_t count, off_t at) {
    static __typeof__(&pwrite) real;
    if (!real) real = REAL(pwrite);
    FULL(file)
    return real(file, bytes, count, at);
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t at) {
    static __typeof__(&pwrite64) real;
    if (!real) real = REAL(pwrite64);
    FULL(file)
    return real(file, bytes, count, at);
}

/* -- the sync -- */

static void take_long(void) {
    if (told->sync_ms > 0) usleep((useconds_t)told->sync_ms * 1000);
}

int fsync(int file) {
    static __typeof__(&fsync) real;
    if (!real) real = REAL(fsync);
    take_long();
    return real(file);
}

int fdatasync(int file) {
    static __typeof__(&fdatasync) real;
    if (!real) real = REAL(fdatasync);
    take_long();
    return real(file);
}
