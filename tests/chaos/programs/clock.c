/* Steps the wall clock of one process, and of nothing else: preload it, and name a file by HEADWATER_CHAOS_CLOCK.
 * The file's first eight bytes are nanoseconds to add to the time of day; they may change at any moment. Every clock
 * that is not the time of day is left alone, so what a process measures by a monotonic clock is not touched. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile long long *step;
static int (*real_clock_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    real_clock_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    const char *path = getenv("HEADWATER_CHAOS_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *found = mmap(NULL, sizeof *step, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (found != MAP_FAILED) step = found;
}

int clock_gettime(clockid_t id, struct timespec *now) {
    if (!real_clock_gettime) begin();
    int failed = real_clock_gettime(id, now);
    if (!failed && step && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
        long long sum = now->tv_nsec + *step % 1000000000LL;
        now->tv_sec += *step / 1000000000LL + (sum >= 1000000000LL) - (sum < 0);
        now->tv_nsec = (sum + 1000000000LL) % 1000000000LL;
    }
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &exact)) return -1;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *where) {
    struct timespec exact;
    if (clock_gettime(CLOCK_REALTIME, &exact)) return -1;
    if (where) *where = exact.tv_sec;
    return exact.tv_sec;
}
