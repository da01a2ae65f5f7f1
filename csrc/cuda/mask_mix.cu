#include "mask_mix.cuh"
#include "mask_mix_patches.cuh"

namespace pmx::cuda {
namespace {

template <class Access>
__global__ void __launch_bounds__(block_threads, 2)
    mask_mix_forward_kernel(MaskMixShape shape, MaskMixTiles tiles, MaskMixOperands operands) {
  DeviceBlock block;
  mask_mix_forward_body<Access>(block, shape, tiles, operands);
}

template <class Access>
__global__ void __launch_bounds__(block_threads, 2)
    mask_mix_patches_kernel(MaskMixShape shape, MaskMixTiles tiles, MaskMixOperands operands,
                            typename Access::A* patches) {
  DeviceBlock block;
  mask_mix_patches_body<Access>(block, shape, tiles, operands, patches);
}

template <class A>
__global__ void mask_mix_gather_kernel(MaskMixShape shape, MaskMixTiles tiles, const A* patches, void* result) {
  DeviceBlock block;
  mask_mix_gather_body<A>(block, shape, tiles, patches, result);
}

template <class Access>
__global__ void __launch_bounds__(block_threads, 2)
    mask_mix_image_gradient_kernel(MaskMixShape shape, MaskMixTiles tiles, MaskMixOperands operands, bool retain_side) {
  DeviceBlock block;
  mask_mix_image_gradient_body<Access>(block, shape, tiles, operands, retain_side);
}

// Calls `body` with the widest access that types, layout and alignment allow, and says whether there is one.
template <class In, class Out, class Body>
bool with_typed(const MaskMixShape& shape, const MaskMixOperands& operands, Body&& body) {
  constexpr int pack = pack_of(sizeof(Out));
  if (!mask_mix_packable(shape, operands, sizeof(In), sizeof(Out), pack)) return false;
  if (!shape.interleaved) {
    body(TypeTag<TypedAccess<In, Out, false, pack>>{});
  } else if (shape.channels == 3) {
    body(TypeTag<TypedAccess<In, Out, true, pack>>{});
  } else {
    return false;
  }
  return true;
}

template <class Out, class Body>
bool with_images(const MaskMixShape& shape, const MaskMixOperands& operands, Body&& body) {
  if (shape.bytes) {
    if constexpr (!std::is_same_v<Out, double>) return with_typed<uint8_t, Out>(shape, operands, body);
    return false;
  }
  return shape.image == shape.out && with_typed<Out, Out>(shape, operands, body);
}

// Calls `body` with the access for this call: typed packs for the usual cases, any element by itself for the others.
template <class Body>
void with_access(const MaskMixShape& shape, const MaskMixOperands& operands, Body&& body) {
  const auto typed = [&] {
    switch (shape.out) {
      case Dtype::f32:
        return with_images<float>(shape, operands, body);
      case Dtype::f64:
        return with_images<double>(shape, operands, body);
      case Dtype::bf16:
        return with_images<BFloat16>(shape, operands, body);
      case Dtype::f16:
        return with_images<Half>(shape, operands, body);
    }
    return false;
  };
  if (typed()) return;
  if (shape.in_double()) {
    body(TypeTag<AnyAccess<double>>{});
  } else {
    body(TypeTag<AnyAccess<float>>{});
  }
}

template <class Access>
MaskMixTiles tiles_for(const MaskMixShape& shape, int64_t partners) {
  return mask_mix_tiles(shape, Access::pack, partners, sizeof(typename Access::A));
}

}  // namespace

void mask_mix_forward(const MaskMixShape& shape, const MaskMixOperands& operands, cudaStream_t stream) {
  with_access(shape, operands, [&](auto access) {
    using Access = typename decltype(access)::type;
    const MaskMixTiles tiles = tiles_for<Access>(shape, mask_mix_partners(shape));
    const size_t shared = tiles.shared<typename Access::A>(tiles.partners);
    mask_mix_forward_kernel<Access>
        <<<static_cast<unsigned>(shape.n_forget * tiles.groups * tiles.per_image()), block_threads, shared, stream>>>(
            shape, tiles, operands);
  });
}

int64_t mask_mix_mask_gradient_scratch(const MaskMixShape& shape, const MaskMixOperands& operands) {
  int64_t bytes = 0;
  with_access(shape, operands, [&](auto access) {
    using Access = typename decltype(access)::type;
    const MaskMixTiles tiles = tiles_for<Access>(shape, 1);
    bytes = shape.pairs() * tiles.per_image() * tiles.patch_values() * static_cast<int64_t>(sizeof(typename Access::A));
  });
  return bytes;
}

void mask_mix_mask_gradient(const MaskMixShape& shape, const MaskMixOperands& operands, void* scratch,
                            cudaStream_t stream) {
  with_access(shape, operands, [&](auto access) {
    using Access = typename decltype(access)::type;
    using A = typename Access::A;
    const MaskMixTiles tiles = tiles_for<Access>(shape, 1);
    const size_t shared = tiles.patch_shared<A>();
    mask_mix_patches_kernel<Access>
        <<<static_cast<unsigned>(shape.pairs() * tiles.per_image()), block_threads, shared, stream>>>(
            shape, tiles, operands, static_cast<A*>(scratch));
    const int64_t elements = shape.pairs() * shape.mask_height * shape.mask_width;
    mask_mix_gather_kernel<A><<<static_cast<unsigned>(ceil_div(elements, block_threads)), block_threads, 0, stream>>>(
        shape, tiles, static_cast<const A*>(scratch), operands.result);
  });
}

void mask_mix_image_gradient(const MaskMixShape& shape, const MaskMixOperands& operands, bool retain_side,
                             cudaStream_t stream) {
  with_access(shape, operands, [&](auto access) {
    using Access = typename decltype(access)::type;
    if constexpr (Access::may_be_floating) {
      const MaskMixTiles tiles = tiles_for<Access>(shape, 1);
      const int64_t images = retain_side ? shape.n_retain : shape.n_forget;
      const size_t shared = tiles.shared<typename Access::A>(1);
      mask_mix_image_gradient_kernel<Access>
          <<<static_cast<unsigned>(images * tiles.per_image()), block_threads, shared, stream>>>(shape, tiles, operands,
                                                                                                 retain_side);
    }
  });
}

}  // namespace pmx::cuda
