"""Checksums of the published files: of the pixels or labels in an IDX file, and of other files as a whole."""

PUBLISHED = {
    "fashion-mnist/t10k-images-idx3-ubyte": "sha256:c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
    "fashion-mnist/t10k-labels-idx1-ubyte": "sha256:3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
    "fashion-mnist/train-images-idx3-ubyte": "sha256:2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
    "fashion-mnist/train-labels-idx1-ubyte": "sha256:657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
    "mnist/t10k-images-idx3-ubyte": "sha256:6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
    "mnist/t10k-labels-idx1-ubyte": "sha256:ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
    "mnist/train-images-idx3-ubyte": "sha256:741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
    "mnist/train-labels-idx1-ubyte": "sha256:1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
    "cifar10n.npz": "sha256:f4585f00bcd218c78291e5fcbb94ec3b2386dd35b2bc0d7a2355457eabef6b94",
    "cifar100n.npz": "sha256:a800e8957c81cd1b4945e14ec715907fe6d9275527c92598c54a737bbbef45c3",
    "cifar10_jpeg.npz": "sha256:0463c206aa3837cd3b71f3ae236974005f077bf2bf841ed42d544ca200dd3dd6",
    "cifar10_train_first4000.npz": "sha256:b12e12b6a4a930d8d0064926a394ab7067bfec6f529b16fa32e58dc4e80350b6",
    "tiny_imagenet_32_jpeg.npz": "sha256:540ede7e2e38f8176230b9dd1624b94d9b892617c47303b957de464bdd752c21",
    "cifar-10-binary.tar.gz": "md5:c32a1d4ab5d03f1284b67883e8d87530",
    "cifar-100-binary.tar.gz": "md5:03b5dce01913d631647c71ecec9e9cb8",
}
