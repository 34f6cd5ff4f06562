/* SPDX-License-Identifier: Apache-2.0 */
#include "noise.h"

#include <math.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "measure.h"

/* Seconds; stolen time is another machine's work, but here it is missing all the same. */
static double busy_seconds(void)
{
    unsigned long long user, nice, system, idle, wait, irq, softirq, steal;
    FILE *stat = fopen("/proc/stat", "re");
    int n = stat ? fscanf(stat, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &user, &nice,
                          &system, &idle, &wait, &irq, &softirq, &steal)
                 : 0;
    if (stat)
        fclose(stat);
    if (n != 8)
        return NAN;
    return (double)(user + nice + system + irq + softirq + steal) / (double)sysconf(_SC_CLK_TCK);
}

static double seconds_of(int who)
{
    struct rusage usage;
    getrusage(who, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static double own_seconds(void)
{
    return seconds_of(RUSAGE_SELF) + seconds_of(RUSAGE_CHILDREN);
}

void noise_begin(struct noise *noise)
{
    *noise = (struct noise){now_ns(), busy_seconds(), own_seconds()};
}

double noise_of_others(const struct noise *noise)
{
    double elapsed = (double)(now_ns() - noise->began_ns) / 1e9;
    double others = busy_seconds() - noise->busy_s - (own_seconds() - noise->own_s);
    double part = others / (elapsed * (double)sysconf(_SC_NPROCESSORS_ONLN));
    return part < 0 ? 0 : part; /* clocks of different grain; NAN stays */
}
