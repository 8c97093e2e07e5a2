/* Counting calls. All fake libraries share the counters of the fake libcudart. */
int fake_cuda_counter(const char *name);
void fake_cuda_count(int counter);
#define COUNT                                                        \
    do {                                                             \
        static int counter = -1;                                     \
        if (counter < 0) counter = fake_cuda_counter(__func__);      \
        fake_cuda_count(counter);                                    \
    } while (0)
