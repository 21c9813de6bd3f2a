// most = the largest of x[0 .. n] and of most, f64, by a loop of compare-and-swap on 64 bits.

extern "C" __global__ void largest(const double *__restrict__ x, unsigned long long *most, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) {
        return;
    }
    unsigned long long known = 0xfff0000000000000ull;
    while (__longlong_as_double(known) < x[i]) {
        unsigned long long found = atomicCAS(most, known, __double_as_longlong(x[i]));
        if (found == known) {
            break;
        }
        known = found;
    }
}
